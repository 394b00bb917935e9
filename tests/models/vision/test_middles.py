"""Where the tokens of each stage look on the image, by the gradients of their entries."""

import pytest
import torch

import windeye.models
from windeye.models.vision import ENTRIES
from windeye.models.vision.reduction import ReductionCell


def middle_of(run, side, stride, draws=8):
    """The mean place that a token in the middle of the map depends on, less where its square begins: rows, columns."""
    x = torch.rand(1, side, side, 3, requires_grad=True)
    out = run(x)
    at = out.shape[1] // 2
    weight = torch.zeros(side, side)
    for _ in range(draws):
        (gradient,) = torch.autograd.grad((out[0, at, at] * torch.randn(out.shape[-1])).sum(), x, retain_graph=True)
        weight += gradient[0].abs().sum(dim=-1)
    place = torch.arange(side)
    return [float((weight.sum(dim=axis) * place).sum() / weight.sum()) - at * stride for axis in (1, 0)]


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_entry_tells_the_middle_of_its_first_token(kind):
    spec = ENTRIES[kind]()
    module = spec.build(3, 32).eval()
    if isinstance(module, ReductionCell):  # its attention sees whole windows

        def run(x):
            return torch.cat([conv(x.permute(0, 3, 1, 2)) for conv in module.dilated], dim=1).permute(0, 2, 3, 1)
    else:
        run = module
    assert middle_of(run, 32, spec.stride) == pytest.approx([spec.middle] * 2, abs=0.25)


@pytest.mark.parametrize("name", ["swin_t", "nat_mini", "biformer_t", "cswin_t", "litv2_s"])
def test_stages_tell_the_middle_of_their_first_token(name):
    """Of stems and downsamplers alone; squares of tokens would be off by up to half a token of them."""
    model = windeye.models.create(name).eval()

    def run(depth):
        def entered(x):
            for entry in list(model.entries)[: depth + 1]:
                x = entry(x)
            return x

        return entered

    for depth, info in enumerate(model.feature_info[:3]):
        found = middle_of(run(depth), 96, info.reduction)
        assert found == pytest.approx([info.middle] * 2, abs=0.06 * info.reduction + 0.2)
