"""MAFormer: declared as a re-design, with exact counts, and weights that other sizes of images interpolate."""

import pytest
import torch

from windeye.models import create, identify, read_checkpoint
from windeye.models.registry import PRESETS
from windeye.models.vision import cost, maformer
from windeye.models.vision.maformer import WEIGHTS
from windeye.nn.mixers import MultiScaleFusionMixer, MultiScaleFusionSpec

SIZES = {
    "maf_micro": (1997891, 31159040),
    "maf_s": (23807922, 4509327360),
    "maf_b": (50684159, 10067729408),
    "maf_l": (105167180, 21945645568),
}
REMEMBERED = {"maf_s": (23, 4.5), "maf_b": (53, 9.8), "maf_l": (105, 22.6)}
"""Millions of parameters and billions of multiply-adds that the paper is remembered to have."""


def made(name, **config):
    with torch.device("meta"):
        return create(name, **config)


@pytest.mark.parametrize("name", SIZES)
def test_counts_are_exact(name):
    found = cost(made(name))
    assert (found.parameters, found.multiply_adds) == SIZES[name]


@pytest.mark.parametrize("name", REMEMBERED)
def test_sizes_are_within_a_twentieth_of_what_is_remembered(name):
    found = cost(made(name))
    millions, billions = REMEMBERED[name]
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.05)
    assert found.multiply_adds / 1e9 == pytest.approx(billions, rel=0.05)


def test_it_is_declared_as_a_reimplementation():
    assert {name: preset.source for name, preset in PRESETS.items() if name in SIZES} == dict.fromkeys(
        SIZES, "reimplementation"
    )
    assert PRESETS["swin_t"].source == "published"


def test_a_block_of_fusion_costs_what_the_formula_says():
    """``4 M C^2 + 2 w^2 M C`` for windows, ``16 M C^2`` for two feed-forward parts, ``M M' C`` for the sums over
    positions, ``2 M C^2 + 2 M' C^2 + 2 M M' C`` for the fusion."""
    dim, tokens, few, window = 16, 14**2, 14 * 7, 7
    one, two = (
        cost(maformer((dim,), (blocks,), (2,), img_size=56, fusion=MultiScaleFusionSpec(window=window)))
        for blocks in (1, 2)
    )
    assert two.attention - one.attention == 2 * window**2 * tokens * dim + 2 * tokens * few * dim
    layers = 4 * tokens * dim**2 + 16 * tokens * dim**2 + tokens * few * dim + 2 * (tokens + few) * dim**2
    assert two.projections - one.projections == layers


def test_fusion_and_sums_over_positions_are_a_quarter_of_the_small_model():
    """The spec's coefficient: ``3 P M^2 C`` per block, quadratic in the tokens."""
    model = cost(made("maf_s"))
    quadratic = [3 * tokens**2 // 2 * dim for tokens, dim in ((56**2, 64), (28**2, 128), (28**2, 128))]
    assert sum(quadratic) / model.multiply_adds == pytest.approx(0.26, abs=0.01)
    windows = cost(made("maf_s", fusion=MultiScaleFusionSpec(fuse_window=14)))
    asked = 2 * (7 * 14) * (56**2 * 64 + 2 * 28**2 * 128)
    assert model.multiply_adds - windows.multiply_adds == 2 * sum(quadratic) // 3 - asked


def test_two_stages_fuse_and_two_attend_to_everything():
    model = made("maf_micro")
    kinds = [[type(block.mixer) is MultiScaleFusionMixer for block in stage] for stage in model.stages]
    assert kinds == [[True], [True], [False, False], [False]]
    assert [stage[0].mixer.size for stage in model.stages[:2]] == [(16, 16), (8, 8)]
    assert [stage[0].norm1 is None for stage in model.stages] == [True, True, False, False]


def test_other_images_are_refused_unless_weights_are_interpolated():
    images = torch.randn(1, 3, 80, 64)
    with pytest.raises(ValueError, match="x has 20 x 16 tokens, but the weights over positions are for 16 x 16"):
        create("maf_micro", num_classes=3)(images)
    assert create("maf_micro", num_classes=3, fusion=MultiScaleFusionSpec())(images).shape == (1, 3)


def small(**config):
    return maformer((8, 16), (1, 1), (2, 2), num_classes=3, **config)


@pytest.mark.parametrize("position", ["bilinear", "embed"])
@pytest.mark.parametrize("size", [(48, 40), (24, 32), (96, 80)])
def test_weights_of_another_size_do_what_interpolation_does(size, position):
    free = small(img_size=(40, 48), fusion=MultiScaleFusionSpec(window=4, position=position)).double().eval()
    for parameter in free.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    bound = small(img_size=size, fusion=MultiScaleFusionSpec(window=4, position=position, resize=None)).double().eval()
    with pytest.raises(ValueError, match="resize=True interpolates it"):
        WEIGHTS.load(bound, free.state_dict())
    report = WEIGHTS.load(bound, free.state_dict(), resize=True)
    assert len(report.resized) == 2 * (2 + (position == "embed"))
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(bound(images), free(images), rtol=1e-9, atol=1e-10)


def test_files_are_read_by_name_and_at_other_sizes(tmp_path):
    file = tmp_path / "micro.pth"
    model = create("maf_micro", num_classes=3).eval()
    torch.save(model.state_dict(), file)
    found = identify(read_checkpoint(file))
    assert (found.names, found.settings["img_size"], found.settings["num_classes"]) == (("maf_micro",), (64, 64), 3)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(create("maf_micro", weights=file, num_classes=3).eval()(images), model(images))
    with pytest.raises(ValueError, match="resize=True interpolates it"):
        create("maf_micro", weights=file, num_classes=3, img_size=96)
    larger = create("maf_micro", weights=file, num_classes=3, img_size=96, resize_tables=True)
    assert larger(torch.randn(2, 3, 96, 96)).shape == (2, 3)
