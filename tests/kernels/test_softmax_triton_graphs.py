"""Compiled graphs around the Triton kernels: whole, and one per rank of the grid, whatever the size.

Tensors are fake: nothing is computed, so that also the path of a GPU can be traced on a machine without one. Gradients
are traced on the CPU, for which the same Python runs; this build of torch may know no autograd on CUDA.
"""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode

import windeye
from windeye import Neighborhood
from windeye.kernels.softmax import operator
from windeye.kernels.softmax.operands import Operands

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
GRIDS = [(6, 7), (8, 9), (32, 32), (5, 4, 6), (8, 8, 8)]


def graphs_of(grids, device, backend, biased=True, gradients=False, **options):
    """Graphs that are compiled on the way through these grids, for each of them."""
    torch.compiler.reset()
    graphs, found = [], []

    def keep(graph, _inputs):
        graphs.append(graph)
        return make_boxed_func(graph)

    def step(q, k, v, bias=None):
        out, lse = windeye.attend(q * 2, k, v, Neighborhood(3), bias=bias, return_lse=True, backend=backend, **options)
        return out.sin() + lse.unsqueeze(-1)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=keep))
    with FakeTensorMode():
        for grid in grids:
            before = len(graphs)
            tensors = [torch.randn(2, *grid, 2, 16, device=device, requires_grad=gradients) for _ in range(3)]
            if biased:
                tensors.append(torch.randn(2, *[5] * len(grid), device=device, requires_grad=gradients))
            out = compiled(*tensors)
            assert out.shape == tensors[0].shape
            assert out.device == tensors[0].device
            if gradients:
                grads = torch.autograd.grad(out.sum(), tensors)
                assert [g.shape for g in grads] == [t.shape for t in tensors]
            found.append(len(graphs) - before)
    return found


@pytest.mark.parametrize(("backend", "dropout_p"), [("triton", 0.1), ("auto", 0.0), ("auto", 0.1)])
@pytest.mark.parametrize("biased", [False, True])
def test_one_graph_per_rank_on_a_gpu(backend, dropout_p, biased):
    assert graphs_of(GRIDS, "cuda", backend, biased, dropout_p=dropout_p) == [1, 0, 0, 1, 0]


def test_one_graph_forward_and_one_backward_per_rank():
    backend = "auto" if torch.cuda.is_available() else "triton"
    assert graphs_of(GRIDS, "cpu", backend, gradients=True) == [2, 0, 0, 2, 0]


def test_operator_contract():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, k, v = (torch.randn(1, 3, 4, 1, 8, device=device, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 3, 3, device=device, requires_grad=True)
    args = (*Operands(q, k, v, bias), Neighborhood(2).spec, [], 0.3, 0.0, "triton")
    torch.library.opcheck(operator.attend, args)
