"""Boxes fetched as tiles, by descriptors of their tensors, give what rows fetched one by one give; where tensors or
patterns do not allow it, rows are fetched."""

import pytest
import torch

import windeye
from windeye.patterns import Causal, Full, Neighborhood, Sliding

pytest.importorskip("triton")
from windeye.kernels.softmax.problem import problem_of
from windeye.kernels.softmax.triton import launch, sizes, tuning

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TILED = DEVICE == "cpu" or torch.cuda.get_device_capability() >= (9, 0)


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """Small boxes, as tiles where that is possible; tells where it was."""
    found = []

    def small(_problem, kernel):
        return sizes.Sizes(32 if kernel == "attention" else 16, 16, 4, 1, tiles=True)

    def spied(*args, asked=launch.tiles):
        found.append(asked(*args))
        return found[-1]

    monkeypatch.setattr(tuning, "first", small)
    monkeypatch.setattr(launch, "tiles", spied)
    return found


def leaves(grid, dims=(16, 8), batch=1):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, *grid, 2, dims[0]), (batch, *grid, 1, dims[0]), (batch, *grid, 1, dims[1])
    return [torch.randn(shape, generator=generator).to(DEVICE).requires_grad_() for shape in shapes]


def results(backend, inputs, pattern, **options):
    out, lse = windeye.attend(*inputs, pattern, backend=backend, return_lse=True, **options)
    return out, lse, *torch.autograd.grad(out.sin().sum() + lse.cos().sum(), inputs)


@pytest.mark.skipif(not TILED, reason="needs a GPU that fetches tiles")
@pytest.mark.parametrize(
    ("pattern", "grid", "dims"),
    [
        (Full(), (9,), (16, 16)),
        (Causal(), (70,), (12, 20)),
        (Sliding(9), (45,), (16, 8)),
        (Neighborhood(3), (5, 7), (16, 8)),
        (Neighborhood((2, 3, 4), stride=(1, 2, 3)), (3, 3, 7), (24, 16)),
        (Neighborhood(3, boundary="wrap"), (7, 9), (16, 16)),
    ],
    ids=str,
)
def test_tiles_equal_the_oracle(pattern, grid, dims, taken):
    inputs = leaves(grid, dims=dims)
    ours, theirs = (results(backend, inputs, pattern) for backend in ("triton", "reference"))
    assert taken == [True] * 3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.skipif(not TILED, reason="needs a GPU that fetches tiles")
def test_padding_bias_dropout_and_extra_keys_go_with_tiles(taken):
    inputs = leaves((5, 7), batch=2)
    extra = torch.randn(2, 18, 1, 16, device=DEVICE), torch.randn(2, 18, 1, 8, device=DEVICE)
    options = {
        "bias": torch.randn(2, 5, 5, device=DEVICE), "key_padding": torch.rand(2, 5, 7, device=DEVICE) < 0.3,
        "dropout_p": 0.3, "extra_kv": extra,
    }  # fmt: skip
    found = []
    for backend in ("triton", "reference"):
        torch.manual_seed(3)
        found.append(results(backend, inputs, Neighborhood(3), **options))
    assert all(taken)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        (Neighborhood(3, dilation=2), lambda t: t),
        (Neighborhood(3), lambda t: t.repeat_interleave(2, dim=-1)[..., ::2]),
        (Neighborhood(3), lambda t: torch.cat((t, t[..., :1]), dim=-1)),
        (Neighborhood(3), lambda t: t[:, :1].expand(-1, 6, -1, -1, -1)),
    ],
    ids=["dilated", "numbers lie apart", "rows of 68 bytes", "one row for all"],
)
def test_rows_are_fetched_where_tiles_cannot_be(pattern, change, taken):
    inputs = leaves((6, 7), dims=(16, 16))
    changed = [change(t.detach()).requires_grad_() for t in inputs]
    found = [results(backend, changed, pattern) for backend in ("triton", "reference")]
    assert not any(taken[:2])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


def test_only_devices_with_descriptors_are_offered_tiles(monkeypatch):
    q = torch.zeros(1, 64, 64, 2, 64, dtype=torch.bfloat16, device="meta")
    problem = problem_of(Neighborhood(13), q, q, q, scale=1.0)
    for there in (False, True):
        monkeypatch.setattr(sizes, "has_descriptors", lambda _problem, there=there: there)
        found = sizes.candidates(problem, "attention")
        assert [option.tiles for option in found[:3]] == [False, there, False]
        assert len(set(found)) == len(found) <= sizes.MOST_CANDIDATES
    assert not any(option.tiles for option in sizes.candidates(problem, "grad_bias"))
