"""Extra keys in the Triton kernels equal the second branch of the oracle, forward and every gradient."""

import pytest
import torch

import windeye
from windeye.patterns import Causal, Full, Neighborhood, Sinks, Sliding

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    """So small that extra keys fill some and leave one half empty."""
    from windeye.kernels.softmax.triton import tuning
    from windeye.kernels.softmax.triton.sizes import Sizes

    monkeypatch.setattr(tuning, "first", lambda _problem, kernel: Sizes(32 if kernel == "attention" else 16, 16, 4, 1))


def results(backend, pattern, grid, extra, kv_heads, dtype, offsets=None, hides=False, dropout_p=0.0):
    """Output, log-sum-exp and all gradients, in the shapes of grouped heads and of values narrower than keys."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, *grid, 2, 6), (2, *grid, kv_heads, 6), (2, *grid, kv_heads, 5)]
    shapes += [(2, extra, kv_heads, 6), (2, extra, kv_heads, 5)]
    shapes += [] if offsets is None else [(2, *offsets)]
    leaves = [torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_() for shape in shapes]
    hidden = torch.rand(2, *grid, generator=generator).to(DEVICE) < 0.4 if hides else None
    torch.manual_seed(2)
    out, lse = windeye.attend(
        *leaves[:3], pattern, extra_kv=(leaves[3], leaves[4]), bias=leaves[5] if offsets else None,
        key_padding=hidden, dropout_p=dropout_p, backend=backend, return_lse=True,
    )  # fmt: skip
    weights = (torch.randn(t.shape, generator=generator).to(t) for t in (out, lse))
    loss = sum((t * weight).sum() for t, weight in zip((out, lse), weights, strict=True))
    return out, lse, *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize(
    ("pattern", "grid", "extra", "kv_heads", "options"),
    [
        (Neighborhood(3), (5, 7), 5, 1, {}),
        (Neighborhood(3, dilation=2), (6, 7), 16, 2, {"dropout_p": 0.4}),
        (Neighborhood(3), (4, 5), 33, 1, {"offsets": (5, 5), "hides": True}),
        (Neighborhood((1, 2, 3), stride=(1, 1, 2)), (2, 3, 7), 20, 1, {"hides": True, "dropout_p": 0.3}),
        (Causal(), (40,), 1, 1, {}),
        (Sliding(5) | Sinks(2), (21,), 40, 1, {"hides": True}),
        (Full(), (3,), 17, 2, {}),
    ],
    ids=str,
)
def test_equals_the_second_branch(pattern, grid, extra, kv_heads, options):
    ours = results("triton", pattern, grid, extra, kv_heads, torch.float32, **options)
    theirs = results("reference", pattern, grid, extra, kv_heads, torch.float32, **options)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype):
    bound = 3e-3 if dtype == torch.float16 else 3e-2
    call = Neighborhood(3), (4, 5), 19, 1
    theirs = results("reference", *call, torch.float32)
    for a, b in zip(results("triton", *call, dtype), theirs, strict=True):
        assert (a.float() - b).abs().max() <= 4 * bound * b.abs().max().clamp(min=1)


def test_without_other_keys_they_are_all_there_is():
    leaves = [torch.randn(2, n, heads, 6, device=DEVICE).requires_grad_() for n, heads in ((7, 4), (0, 2), (18, 2))]
    found = []
    for backend in ("triton", "reference"):
        query, none, extra = leaves
        out = windeye.attend(query, none, none, extra_kv=(extra, extra), backend=backend)
        found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


def test_they_are_met_in_the_kernel(monkeypatch):
    from windeye.ops import softmax

    monkeypatch.setattr(softmax, "merge_branches", None)
    results("triton", Neighborhood(3), (4, 5), 3, 1, torch.float32)
