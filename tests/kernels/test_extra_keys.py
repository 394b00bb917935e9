"""Keys that every query sees, inside of one operator: what a kernel that joins them is given, and what becomes of it.

The kernel is a dense one of these tests, so that operator and kernels of a device are proven apart.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import windeye
from windeye import Causal, Documents, Neighborhood, Sinks, Sliding
from windeye.kernels.softmax import operator, registry
from windeye.kernels.softmax.dropout import keep_mask
from windeye.kernels.softmax.operands import Gradients
from windeye.kernels.softmax.reference import spread_bias

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
EXTRA = 7
CASES = [
    (Neighborhood(3, stride=2), (6, 5), (4, 5, 5)),
    (Neighborhood((3, 2), dilation=(1, 2)), (4, 6), None),
    (Sliding(4) | Sinks(1), (9,), None),
    (Sliding(3), (8,), (4, 5)),
    (Documents((3, 0, 4)) & Causal(), (7,), None),
]
by_case = pytest.mark.parametrize(("pattern", "grid", "offsets"), CASES, ids=str)


class Joint:
    """One dense softmax over the keys of the pattern and the extra ones; a backend and its kernel."""

    name = "joint"
    JOINS_EXTRA = True

    def can_run(self, _problem):
        return None

    def attend(self, problem, operands):
        return operator.attend_by(self.name, problem, operands)

    def forward(self, problem, operands):
        q, k, v = (t.flatten(1, -3) for t in operands[:3])
        allowed = problem.bound.mask().expand(problem.batch, problem.heads, -1, -1)
        if operands.key_padding is not None:
            allowed = allowed & ~operands.key_padding.flatten(1)[:, None, None]
        logits = self.logits(problem, q, k)
        if operands.bias is not None:
            logits = logits + spread_bias(problem.bound, operands.bias)
        logits = logits.masked_fill(~allowed, -torch.inf)
        problems, seeds = [problem], [operands.seed]
        if operands.extra_key is not None:
            assert operands.extra_key.shape[1] > 0
            logits = torch.cat([logits, self.logits(problem, q, operands.extra_key)], dim=-1)
            v = torch.cat([v, operands.extra_value], dim=1)
            problems.append(replace(problem, grid_kv=(operands.extra_key.shape[1],)))
            seeds.append(operands.extra_seed)
        lse = logits.logsumexp(dim=-1, keepdim=True)
        weights = (logits - lse).exp()
        if problem.dropout_p > 0.0:
            kept = [keep_mask(seed, part, q.device) for seed, part in zip(seeds, problems, strict=True)]
            weights = weights * torch.cat(kept, dim=-1) / (1 - problem.dropout_p)
        v = v.repeat_interleave(problem.heads // problem.kv_heads, dim=2)
        out = torch.einsum("bhqk,bkhd->bqhd", weights, v)
        rows = operands.query.shape[:-1]
        lse = lse[..., 0].transpose(1, 2).reshape(rows)
        return out.reshape(*rows, problem.value_dim).contiguous(), lse.contiguous()

    def logits(self, problem, query, key):
        key = key.repeat_interleave(problem.heads // problem.kv_heads, dim=2)
        return problem.scale * torch.einsum("bqhd,bkhd->bhqk", query, key)

    def backward(self, problem, operands, _out, _lse, *pulls):
        given = {field: getattr(operands, field) for field in Gradients._fields}
        leaves = {field: t.detach().requires_grad_() for field, t in given.items() if t is not None}

        def differentiate():
            found = self.forward(problem, operands._replace(**leaves))
            return torch.autograd.grad(found, list(leaves.values()), pulls)

        # Inside of an operator a thread has no autograd; another one has.
        with ThreadPoolExecutor(1) as thread:
            grads = thread.submit(differentiate).result()
        # Dense and of their own memory, as an operator must return them: some are parts of one tensor.
        grads = (grad.clone(memory_format=torch.contiguous_format) for grad in grads)
        return Gradients(**dict(zip(leaves, grads, strict=True)))


@pytest.fixture(autouse=True)
def _a_backend_that_joins_extra_keys(monkeypatch):
    joint = Joint()
    monkeypatch.setitem(registry.BACKENDS, joint.name, joint)
    monkeypatch.setitem(operator.KERNELS, joint.name, joint)


def tensors(grid, offsets=None, extra=EXTRA):
    """Query, key, value, extra keys and values and, if there are offsets, a bias."""
    shapes = [(2, *grid, 4, 8), (2, *grid, 2, 8), (2, *grid, 2, 6), (2, extra, 2, 8), (2, extra, 2, 6)]
    shapes += [] if offsets is None else [offsets]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def attend(leaves, pattern, backend, **options):
    q, k, v, extra_k, extra_v, *bias = leaves
    bias = bias[0] if bias else None
    return windeye.attend(
        q, k, v, pattern, bias=bias, extra_kv=(extra_k, extra_v), backend=backend, return_lse=True, **options
    )


def close(ours, theirs):
    return all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@by_case
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("padded", [False, True])
def test_joined_keys_equal_a_second_branch(pattern, grid, offsets, dropout_p, padded):
    leaves, hidden = tensors(grid, offsets), None
    if padded:
        hidden = torch.rand(2, *grid) < 0.4
        hidden[0] = True  # these queries see extra keys alone
    weights = [torch.randn(2, *grid, 4, 6, dtype=torch.float64), torch.randn(2, *grid, 4, dtype=torch.float64)]
    found = []
    for backend in ("joint", "reference"):
        torch.manual_seed(5)
        results = attend(leaves, pattern, backend, scale=0.4, key_padding=hidden, dropout_p=dropout_p)
        after = torch.rand(4, dtype=torch.float64)
        grads = torch.autograd.grad(results, leaves, weights)
        found.append((*results, *grads, after))
    assert close(*found)


@by_case
def test_one_graph_holds_them(pattern, grid, offsets):
    torch.compiler.reset()
    leaves = tensors(grid, offsets)

    def step(*leaves):
        out, lse = attend(leaves, pattern, "joint", dropout_p=0.2)
        return out.sin().sum() + lse.sum()

    found = []
    for run in (torch.compile(step, fullgraph=True, backend="aot_eager"), step):
        torch.manual_seed(5)
        result = run(*leaves)
        found.append((result, *torch.autograd.grad(result, leaves)))
    assert close(*found)


def test_one_graph_serves_any_number_of_them():
    torch.compiler.reset()
    graphs = []

    def keep(graph, _inputs):
        graphs.append(graph)
        return graph

    def step(*leaves):
        return attend(leaves, Sliding(3), "joint")[0]

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=keep)
    for tokens, extra in ((9, 7), (12, 5), (30, 40)):
        leaves = tensors((tokens,), extra=extra)
        assert torch.equal(compiled(*leaves), step(*leaves))
    assert len(graphs) == 1


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_no_keys_are_no_extra_keys(dropout_p):
    leaves = tensors((5, 4), extra=0)
    found = []
    for options in ({"extra_kv": leaves[3:]}, {}):
        torch.manual_seed(5)
        results = windeye.attend(
            *leaves[:3], Neighborhood(3), dropout_p=dropout_p, backend="joint", return_lse=True, **options
        )
        found.append((*results, *torch.autograd.grad(results[0].sum(), leaves[:3], retain_graph=True)))
        if options:
            grads = torch.autograd.grad(results[0].sum(), leaves[3:])
            assert [g.shape for g in grads] == [t.shape for t in leaves[3:]]
    assert close(*found)


def test_extra_keys_alone_may_want_gradients():
    leaves = tensors((9,))
    frozen = [t.detach() for t in leaves[:3]]
    found = [attend([*frozen, *leaves[3:]], Sliding(3), backend)[0].sin().sum() for backend in ("joint", "reference")]
    assert close(*(torch.autograd.grad(result, leaves[3:]) for result in found))


@pytest.mark.parametrize("offsets", [None, (4, 5, 5)])
@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
def test_operator_contract(offsets, dropout_p):
    q, k, v, extra_k, extra_v, *bias = tensors((4, 5), offsets)
    seeds = [torch.tensor(seed) if dropout_p else None for seed in (3, 4)]
    operands = (q, k, v, bias[0] if bias else None, None, seeds[0], extra_k, extra_v, seeds[1])
    torch.library.opcheck(operator.attend, (*operands, Neighborhood(3).spec, [], 0.3, dropout_p, "joint"))


def test_fake_tensors_have_the_right_shapes():
    with FakeTensorMode():
        leaves = tensors((64, 64), (4, 5, 5))
        out, lse = attend(leaves, Neighborhood(3), "joint")
        grads = torch.autograd.grad(out.sum() + lse.sum(), leaves)
    assert (out.shape, lse.shape) == ((2, 64, 64, 4, 6), (2, 64, 64, 4))
    assert [g.shape for g in grads] == [t.shape for t in leaves]


def test_vmap_is_refused_with_the_way_out():
    q, k, v, *extra = (t.detach() for t in tensors((6,)))
    with pytest.raises(RuntimeError, match="batch axis"):
        torch.vmap(lambda x: windeye.attend(x, k, v, Sliding(2), extra_kv=tuple(extra), backend="joint"))(q[None])


def test_other_backends_are_given_none(monkeypatch):
    given = []

    def attend_by_reference(problem, operands, run=registry.BACKENDS["reference"].attend):
        given.append(operands)
        return run(problem, operands)

    monkeypatch.setattr(registry.BACKENDS["reference"], "attend", attend_by_reference)
    attend(tensors((6,)), Sliding(2), "reference")
    assert [operands.key.shape[1] for operands in given] == [6, EXTRA]
    assert all(operands.extra_key is None for operands in given)
