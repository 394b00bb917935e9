"""Attention over dense relations equals attention one query at a time, forward and gradient, on every backend."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import windeye
from oracles.attention import attention_per_head
from windeye import Allowed, Causal, Expiry, Sliding, topw_expiry

BACKENDS = ["sdpa", "reference"]


@dataclass(frozen=True)
class Problem:
    queries: int
    keys: int
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    mask_heads: int = 2
    head_dim: int = 5
    value_dim: int = 3
    density: float = 0.3
    shared: bool = False
    """One relation for every batch entry."""
    padding: bool = False
    layout: str = "plain"


PROBLEMS = [
    Problem(1, 1),
    Problem(9, 9, density=0.0),
    Problem(33, 17, batch=2, heads=6, kv_heads=3, mask_heads=1),
    Problem(20, 41, batch=2, heads=4, kv_heads=1, mask_heads=2, shared=True, padding=True),
    Problem(31, 31, heads=4, kv_heads=2, mask_heads=4, head_dim=16, value_dim=16, layout="permuted"),
    Problem(12, 30, batch=3, layout="sliced", padding=True, density=0.1),
]


@st.composite
def problems(draw):
    kv_heads, group = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2, 3)))
    heads = kv_heads * group
    return Problem(
        draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 2)), heads, kv_heads,
        draw(st.sampled_from([h for h in (1, 2, 3, 4, 6) if heads % h == 0])), draw(st.sampled_from((1, 4, 7))),
        draw(st.sampled_from((1, 5))), draw(st.sampled_from((0.1, 0.5, 1.0))), draw(st.booleans()),
        draw(st.booleans()), draw(st.sampled_from(("plain", "permuted", "sliced"))),
    )  # fmt: skip


def inputs(problem):
    generator = torch.Generator().manual_seed(problem.queries + 31 * problem.keys)

    def tokens(n, heads, dim):
        def random(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        if problem.layout == "sliced":
            return random(problem.batch, 2 * n, 2 * heads, 2 * dim)[:, ::2, ::2, ::2]
        if problem.layout == "permuted":
            return random(problem.batch, heads, dim, n).permute(0, 3, 1, 2)
        return random(problem.batch, n, heads, dim)

    sizes = [
        (problem.queries, problem.heads, problem.head_dim),
        (problem.keys, problem.kv_heads, problem.head_dim),
        (problem.keys, problem.kv_heads, problem.value_dim),
    ]
    leaves = [tokens(*size).requires_grad_() for size in sizes]
    planes = (1 if problem.shared else problem.batch, problem.mask_heads, problem.queries, problem.keys)
    mask = torch.rand(planes, generator=generator) < problem.density
    hidden = torch.rand(problem.batch, problem.keys, generator=generator) < 0.4 if problem.padding else None
    if hidden is not None:
        hidden[0] = True
    return leaves, mask, hidden, tokens(problem.queries, problem.heads, problem.value_dim).detach()


def check(problem, backend):
    leaves, mask, hidden, grad_out = inputs(problem)
    out, lse = attention_per_head(*leaves, mask, scale=0.4, hidden=hidden)
    grads = torch.autograd.grad((out * grad_out).sum() + sum(0 * t.sum() for t in leaves), leaves)
    options = {"scale": 0.4, "key_padding": hidden, "backend": backend}
    ours = windeye.attend(*leaves, Allowed(mask), **options)
    torch.testing.assert_close(ours, out, rtol=0, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, leaves, grad_out), grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    if backend == "reference":
        found = windeye.attend(*leaves, Allowed(mask), **options, return_lse=True)[1]
        torch.testing.assert_close(found, lse, rtol=0, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle(problem, backend):
    check(problem, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_problems(problem, backend):
    check(problem, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_loses_no_more_than_dense_attention_does(dtype):
    leaves, mask, _, _ = inputs(Problem(60, 60, heads=4, kv_heads=2, head_dim=16, value_dim=16))
    q, k, v = (t.detach().to(dtype) for t in leaves)
    truth = windeye.attend(q.double(), k.double(), v.double(), Allowed(mask), backend="reference")
    ours = windeye.attend(q, k, v, Allowed(mask))
    assert ours.dtype == dtype
    assert (ours.double() - truth).abs().max() <= 4 * torch.finfo(dtype).eps * truth.abs().max()


@pytest.mark.parametrize("pattern", [Causal(), Sliding(5)], ids=str)
def test_the_mask_of_a_pattern_computes_what_the_pattern_computes(pattern):
    q, k, v = torch.randn(3, 2, 30, 4, 8).unbind(0)
    dense = windeye.attend(q, k, v, Allowed(pattern.bind((30,)).mask()), backend="sdpa")
    assert torch.allclose(dense, windeye.attend(q, k, v, pattern), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_nobody_sees_may_be_nan_and_rows_without_keys_are_zero(backend):
    q, k, v = (t.detach() for t in torch.randn(3, 1, 6, 2, 4).unbind(0))
    k[:, 3], v[:, 3] = torch.nan, torch.nan
    leaves = [t.requires_grad_() for t in (q, k, v)]
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:, 3], mask[2] = False, False
    out = windeye.attend(*leaves, Allowed(mask), backend=backend)
    assert not out[0, 2].any()
    assert out.isfinite().all()
    if backend == "sdpa":  # the reference multiplies NaN keys by a gradient of zero
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), leaves))


def test_the_backend_follows_from_what_is_asked_for():
    q, mask = torch.randn(2, 8, 2, 4), torch.rand(8, 8) < 0.5
    assert windeye.explain(q, q, q, Allowed(mask)).backend == "sdpa"
    assert windeye.explain(q, q, q, Allowed(mask), return_lse=True).backend == "reference"
    explained = windeye.explain(q, q, q, Allowed(mask.expand(2, 2, 8, 8)))
    assert explained.pairs == 4 * int(mask.sum())
    assert explained.relations == 4
    assert "not cpu: it reads interval tables and lifetimes" in str(explained)
    with pytest.raises(ValueError, match=r'"sdpa" cannot run this call: it serves dense masks, Sliding\(window=3\)'):
        windeye.attend(q, q, q, Sliding(3), backend="sdpa")
    with pytest.raises(ValueError, match="its dropout does not drop the pairs"):
        windeye.attend(q, q, q, Allowed(mask), dropout_p=0.1, backend="sdpa")


def test_branches_merge_and_a_bias_per_key_is_added():
    q, k, v = torch.randn(3, 2, 9, 2, 4, dtype=torch.float64).unbind(0)
    near = torch.rand(9, 9) < 0.5
    both = windeye.attend(q, k, v)
    parts = [windeye.attend(q, k, v, Allowed(m), return_lse=True) for m in (near, ~near)]
    assert torch.allclose(windeye.merge(*parts)[0], both, atol=1e-12)
    bias = torch.randn(2, 2, 9, dtype=torch.float64)
    biased = windeye.attend(q, k, v, Allowed(near), bias=bias, scale=0.3)
    assert torch.allclose(biased, attention_per_head(q, k, v, near[None, None], scale=0.3, bias=bias)[0], atol=1e-12)


def test_with_lifetimes_it_combines():
    q, k, v = torch.randn(3, 1, 20, 2, 4).unbind(0)
    mask, lives = torch.rand(1, 1, 20, 20) < 0.5, Expiry(topw_expiry(torch.randn(1, 2, 20), 4))
    both = mask & lives.bind((20,)).mask()
    assert torch.equal((lives & Allowed(mask)).mask, both)
    assert torch.allclose(windeye.attend(q, k, v, Allowed(mask) & lives), windeye.attend(q, k, v, Allowed(both)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_into_one_graph_that_new_masks_reuse(backend):
    torch.compiler.reset()
    graphs = []

    def counting(graph, _inputs):
        graphs.append(graph)
        return graph

    def step(q, k, v, mask):
        return windeye.attend(q, k, v, Allowed(mask), backend=backend).sin()

    leaves = [torch.randn(2, 12, 2, 4, requires_grad=True) for _ in range(3)]
    compiled = torch.compile(step, fullgraph=True, backend=counting)
    for _ in range(3):
        mask = torch.rand(2, 1, 12, 12) < 0.5
        ours, plain = compiled(*leaves, mask), step(*leaves, mask)
        assert torch.allclose(ours, plain, atol=1e-6)
        pairs = zip(torch.autograd.grad(ours.sum(), leaves), torch.autograd.grad(plain.sum(), leaves), strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flex_computes_the_same():
    q, k, v = torch.randn(3, 2, 150, 4, 16).unbind(0)
    mask, hidden = torch.rand(2, 2, 150, 150) < 0.2, torch.rand(2, 150) < 0.2
    mask[..., 0] = True
    hidden[:, 0] = False
    flex = windeye.attend(q, k, v, Allowed(mask), key_padding=hidden, backend="flex")
    assert torch.allclose(flex, windeye.attend(q, k, v, Allowed(mask), key_padding=hidden), atol=1e-5)


Q, MASK = torch.zeros(2, 5, 4, 8), torch.ones(2, 2, 5, 5, dtype=torch.bool)
WRONG = {
    "other keys": (MASK[..., :4], "mask holds 5 queries and 4 keys but query has 5 and key has 5"),
    "another batch": (MASK.repeat(2, 1, 1, 1), "mask has batch 4 but query has 2"),
    "heads that do not divide": (MASK[:, [0, 1, 0]], "mask has 3 heads, which do not divide the 4"),
    "another device": (MASK.to("meta"), "mask is on meta but query is on cpu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_do_not_fit_are_refused(name):
    mask, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        windeye.attend(Q, Q, Q, Allowed(mask))


def test_a_grid_is_refused():
    grid = torch.zeros(1, 2, 3, 1, 4)
    with pytest.raises(ValueError, match="Allowed is a pattern of sequences, but query has 2 grid axes"):
        windeye.attend(grid, grid, grid, Allowed(MASK))
