"""Attention dropout: the same pairs fall in every backend, the mean is kept, the seed decides."""

import pytest
import torch

import windeye
from windeye import Full, Neighborhood
from windeye.kernels.native import instruction_sets

native = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")


WINDOW = Neighborhood(5)


def run(backend, pattern=WINDOW, grid=(9, 8), p=0.4, seed=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(2, *grid, 3, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(3)
    )
    torch.manual_seed(seed)
    out, lse = windeye.attend(q, k, v, pattern, dropout_p=p, backend=backend, return_lse=True)
    return (out, lse, *torch.autograd.grad(out.sin().sum() + lse.sum(), (q, k, v)))


@native
@pytest.mark.parametrize("pattern", [Neighborhood(5), Neighborhood(3, dilation=2), Full(), windeye.Causal()])
def test_backends_drop_the_same_pairs(pattern):
    for ours, theirs in zip(run("cpu", pattern), run("reference", pattern), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=native), "reference"])
def test_the_seed_decides(backend):
    assert torch.equal(run(backend, seed=3)[0], run(backend, seed=3)[0])
    assert not torch.equal(run(backend, seed=3)[0], run(backend, seed=4)[0])


@native
def test_the_log_sum_exp_knows_nothing_of_dropout():
    assert torch.allclose(run("cpu")[1], run("cpu", p=0.0)[1])


@native
def test_the_share_of_dropped_weights_is_p():
    tokens = 512
    q = torch.zeros(1, tokens, 1, 8)
    value = torch.eye(tokens)[None, :, None, :]
    weights = windeye.attend(q, q, value, dropout_p=0.3, backend="cpu")[0, :, 0]
    kept = (weights > 0).double()
    assert abs(kept.mean() - 0.7) < 5 * (0.21 / tokens**2) ** 0.5
    assert torch.allclose(weights[weights > 0], torch.tensor(1 / tokens / 0.7), rtol=1e-5)
    # No row, column or diagonal is favoured.
    assert (kept.mean(dim=0) - 0.7).abs().max() < 6 * (0.21 / tokens) ** 0.5
    assert (kept.mean(dim=1) - 0.7).abs().max() < 6 * (0.21 / tokens) ** 0.5


@native
def test_heads_and_batches_drop_different_pairs():
    q = torch.zeros(2, 64, 2, 8)
    value = torch.eye(64)[None, :, None, :].expand(2, 64, 2, 64)
    kept = windeye.attend(q, q, value, dropout_p=0.5, backend="cpu") > 0
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[:, :, 0], kept[:, :, 1])
