"""The operators under torch's own tools: compile, opcheck, fake tensors, vmap."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import windeye
from windeye import Causal, Documents, Full, Neighborhood, Sinks, Sliding
from windeye.kernels.native import instruction_sets
from windeye.kernels.softmax import operator
from windeye.kernels.softmax.operands import Operands

pytestmark = [
    pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CASES = [
    (Neighborhood(3, stride=2), (6, 7)),
    (Sliding(4) | Sinks(2), (20,)),
    (Documents((5, 7)) & Causal(), (12,)),
    (Full(), (3, 2, 4)),
]


def tensors(*grid):
    return [torch.randn(2, *grid, 2, 8, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize(("pattern", "grid"), CASES, ids=str)
def test_compiles_into_one_graph_forward_and_backward(pattern, grid):
    torch.compiler.reset()

    def step(q, k, v):
        out, lse = windeye.attend(q * 2, k, v, pattern, return_lse=True)
        return out.sin() + lse[..., None]

    q, k, v = tensors(*grid)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    ours, plain = compiled(q, k, v), step(q, k, v)
    assert torch.allclose(ours, plain, atol=1e-6)
    for a, b in zip(
        torch.autograd.grad(ours.sum(), (q, k, v)), torch.autograd.grad(plain.sum(), (q, k, v)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_compiles_with_inductor_bias_padding_and_extra_keys():
    torch.compiler.reset()
    q, k, v = tensors(5, 6)
    bias = torch.randn(2, 5, 5, requires_grad=True)
    hidden = torch.rand(2, 5, 6) < 0.3
    extra = (torch.randn(2, 3, 2, 8), torch.randn(2, 3, 2, 8))

    def step(q, k, v, bias):
        return windeye.attend(q, k, v, Neighborhood(3), bias=bias, key_padding=hidden, extra_kv=extra).exp()

    compiled = torch.compile(step, fullgraph=True)
    ours, plain = compiled(q, k, v, bias), step(q, k, v, bias)
    assert torch.allclose(ours, plain, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours.sum(), (q, k, v, bias)), torch.autograd.grad(plain.sum(), (q, k, v, bias)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_reference_compiles_as_well():
    torch.compiler.reset()
    q, k, v = tensors(5, 6)

    def step(q, k, v):
        return windeye.attend(q, k, v, Neighborhood(3), backend="reference")

    assert torch.allclose(torch.compile(step, fullgraph=True, backend="aot_eager")(q, k, v), step(q, k, v), atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_operator_contract(bias):
    q, k, v = tensors(4, 5)
    table = torch.randn(2, 5, 5, requires_grad=True) if bias else None
    args = (*Operands(q, k, v, table), Neighborhood(3).spec, [], 0.3, 0.0, "cpu")
    torch.library.opcheck(operator.attend, args)


def test_fake_tensors_have_the_right_shapes_and_compute_nothing():
    with FakeTensorMode():
        q = torch.empty(1, 512, 512, 8, 64)
        v = torch.empty(1, 512, 512, 8, 32)
        out, lse = windeye.attend(q, q, v, Neighborhood(63), return_lse=True)
    assert out.shape == (1, 512, 512, 8, 32)
    assert lse.shape == (1, 512, 512, 8)
    assert lse.dtype == torch.float32


def test_vmap_is_refused_with_the_way_out():
    q = torch.randn(3, 1, 6, 2, 8)
    with pytest.raises(RuntimeError, match="batch axis"):
        torch.vmap(lambda x: windeye.attend(x, x, x, Sliding(2)))(q)


def test_works_under_checkpointing():
    from torch.utils.checkpoint import checkpoint

    q, k, v = tensors(7)
    plain = torch.autograd.grad(windeye.attend(q, k, v, Sliding(3)).sum(), (q, k, v))
    again = checkpoint(lambda *t: windeye.attend(*t, Sliding(3)), q, k, v, use_reentrant=False)
    assert all(torch.equal(a, b) for a, b in zip(plain, torch.autograd.grad(again.sum(), (q, k, v)), strict=True))
