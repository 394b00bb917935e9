"""FlexAttention behind our interface: the same numbers, and clear reasons where it cannot run."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

import windeye
from oracles.problems import PROBLEMS
from windeye import Documents, Neighborhood, Sliding
from windeye.kernels.softmax import flex


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.pattern.bind(p.grid, p.grid_kv).terms][::2], ids=str)
def test_the_block_mask_is_the_one_that_torch_would_make(problem):
    bound = problem.pattern.bind(problem.grid, problem.grid_kv)
    ours = flex.block_mask(bound)
    theirs = create_block_mask(bound.mask_mod(), None, None, bound.tokens, bound.tokens_kv, device="cpu")
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert ours.seq_lengths == theirs.seq_lengths


@pytest.mark.parametrize(("pattern", "grid"), [(Sliding(150), (700,)), (Neighborhood(9, stride=3), (24, 24))])
def test_whole_and_partial_blocks(pattern, grid):
    bound = pattern.bind(grid)
    ours = flex.block_mask(bound)
    theirs = create_block_mask(bound.mask_mod(), None, None, bound.tokens, bound.tokens_kv, device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    for row in range(ours.kv_num_blocks.shape[-1]):
        for count, index in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
            n = int(getattr(ours, count)[0, 0, row])
            assert torch.equal(getattr(ours, index)[0, 0, row, :n], getattr(theirs, index)[0, 0, row, :n])


@pytest.mark.parametrize("padding", [False, True])
def test_compiled_inference_equals_the_reference(padding):
    q = torch.randn(2, 12, 13, 4, 16)
    k, v = torch.randn(2, 12, 13, 2, 16), torch.randn(2, 12, 13, 2, 16)
    hidden = torch.rand(2, 12, 13) < 0.3 if padding else None
    with torch.no_grad():
        out = windeye.attend(q, k, v, Neighborhood(5), key_padding=hidden, backend="flex")
        expected = windeye.attend(q, k, v, Neighborhood(5), key_padding=hidden, backend="reference")
    assert torch.allclose(out, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_log_sum_exp_and_empty_rows_as_on_a_gpu(monkeypatch):
    """The uncompiled form gives what CUDA gives, so the code around it is tested without a GPU."""
    from windeye.kernels.softmax.operands import Operands
    from windeye.kernels.softmax.problem import problem_of

    monkeypatch.setattr(flex, "_compiled", flex._flex_attention)
    q, k, v = (torch.randn(2, 20, 2, 16) for _ in range(3))
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[0, :9] = True
    pattern = Documents((9, 11))
    problem = problem_of(pattern, q, k, v, scale=0.3, has_key_padding=True)
    out, lse = flex.attend(problem, Operands(q, k, v, key_padding=hidden))
    expected = windeye.attend(q, k, v, pattern, scale=0.3, key_padding=hidden, backend="reference", return_lse=True)
    assert torch.allclose(out, expected[0], atol=1e-5)
    assert torch.equal(torch.isneginf(lse), torch.isneginf(expected[1]))
    assert torch.allclose(lse[lse > -torch.inf], expected[1][lse > -torch.inf], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"return_lse": True}, "log-sum-exp"),
        ({"dropout_p": 0.1}, "dropout"),
        ({"bias": torch.zeros(2, 5, 5)}, "bias"),
    ],
)
def test_reasons(options, reason):
    q = torch.zeros(1, 8, 8, 2, 16)
    with pytest.raises(ValueError, match=f'"flex" cannot run this call: .*{reason}'):
        windeye.attend(q, q, q, Neighborhood(3), backend="flex", **options)


def test_training_on_a_cpu_is_refused():
    q = torch.zeros(1, 8, 2, 16, requires_grad=True)
    with pytest.raises(ValueError, match="no backward pass on CPUs"):
        windeye.attend(q, q, q, backend="flex")


@pytest.mark.gpu
def test_equals_the_reference_on_a_gpu():
    q, k, v = (torch.randn(1, 40, 40, 4, 64, device="cuda", requires_grad=True) for _ in range(3))
    ours = windeye.attend(q, k, v, Neighborhood(7), backend="flex", return_lse=True)
    theirs = windeye.attend(q, k, v, Neighborhood(7), backend="reference", return_lse=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=2e-2)
    for a, b in zip(
        torch.autograd.grad(ours[0].sum(), (q, k, v)), torch.autograd.grad(theirs[0].sum(), (q, k, v)), strict=True
    ):
        assert torch.allclose(a, b, atol=5e-2)
