"""Attention of regions to chosen regions equals attention one query at a time, and its memory grows with the tokens."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import windeye
from oracles.attention import attention_per_head
from windeye import Routed
from windeye.kernels.softmax import cpu, gather, triton


@dataclass(frozen=True)
class Problem:
    counts: tuple[int, ...]
    size: tuple[int, ...]
    size_kv: tuple[int, ...]
    keep: int
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    choices: int = 1
    shared: bool = False
    """One choice for every batch entry."""
    holes: bool = False
    """Entries that show nothing."""
    padding: bool = False
    layout: str = "plain"


PROBLEMS = [
    Problem((1,), (1,), (1,), 1),
    Problem((5,), (3,), (2,), 2, batch=2, heads=6, kv_heads=3, choices=3),
    Problem((2, 3), (3, 2), (3, 2), 4, batch=2, heads=4, kv_heads=1, choices=2, padding=True),
    Problem((3, 3), (2, 2), (1, 1), 9, heads=4, kv_heads=4, shared=True, layout="permuted"),
    Problem((2, 2), (1, 3), (2, 1), 3, batch=3, holes=True, padding=True, layout="sliced"),
    Problem((2, 1, 2), (1, 2, 2), (1, 1, 2), 2, batch=2, holes=True),
]


@st.composite
def problems(draw):
    rank = draw(st.integers(1, 2))
    counts, size, size_kv = (tuple(draw(st.integers(1, 3)) for _ in range(rank)) for _ in range(3))
    kv_heads, sharing = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2)))
    heads = kv_heads * sharing
    return Problem(
        counts, size, size_kv, draw(st.integers(1, torch.Size(counts).numel())), draw(st.integers(1, 2)), heads,
        kv_heads, draw(st.sampled_from([c for c in (1, 2, 4) if heads % c == 0])), draw(st.booleans()),
        draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(("plain", "permuted", "sliced"))),
    )  # fmt: skip


def inputs(problem):
    generator = torch.Generator().manual_seed(sum(problem.counts) + 31 * problem.keep)

    def tokens(size, heads, dim):
        grid = [count * side for count, side in zip(problem.counts, size, strict=True)]

        def random(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        if problem.layout == "sliced":
            return random(problem.batch, *grid, 2 * heads, 2 * dim)[..., ::2, ::2]
        if problem.layout == "permuted":
            return random(problem.batch, heads, dim, *grid).movedim((1, 2), (-2, -1))
        return random(problem.batch, *grid, heads, dim)

    sizes = [(problem.size, problem.heads, 5), (problem.size_kv, problem.kv_heads, 5)]
    sizes.append((problem.size_kv, problem.kv_heads, 3))
    leaves = [tokens(*size).requires_grad_() for size in sizes]
    regions = torch.Size(problem.counts).numel()
    entries = (1 if problem.shared else problem.batch) * problem.choices * regions
    index = torch.stack([torch.randperm(regions, generator=generator) for _ in range(entries)])[:, : problem.keep]
    index = index.reshape(-1, problem.choices, regions, problem.keep)
    if problem.holes:
        index[torch.rand(index.shape, generator=generator) < 0.4] = -1
    pattern = Routed(index[:, 0] if problem.choices == 1 else index, problem.counts)
    hidden = torch.rand(leaves[1].shape[:-2], generator=generator) < 0.3 if problem.padding else None
    return leaves, pattern, hidden, tokens(problem.size, problem.heads, 3).detach()


def without_native_kernels(monkeypatch):
    for kernel in (cpu, triton):
        monkeypatch.setattr(kernel, "can_run", lambda _: "not here")


def check(problem, backend="gather"):
    leaves, pattern, hidden, grad_out = inputs(problem)
    grid, grid_kv = (tuple(t.shape[1:-2]) for t in leaves[:2])
    flat = [t.flatten(1, -3) for t in leaves]
    mask = pattern.bind(grid, grid_kv).mask()
    out, lse = attention_per_head(*flat, mask, scale=0.4, hidden=None if hidden is None else hidden.flatten(1))
    grad_lse = torch.where(lse.isfinite(), lse, 0.0).sin().detach()
    loss = (out * grad_out.flatten(1, -3)).sum() + (torch.where(lse.isfinite(), lse, 0.0) * grad_lse).sum()
    grads = torch.autograd.grad(loss + sum(0 * t.sum() for t in leaves), leaves)
    ours = windeye.attend(
        *leaves, pattern, scale=0.4, key_padding=hidden, backend=backend, return_lse=True
    )  # fmt: skip
    torch.testing.assert_close(ours[0].flatten(1, -3), out, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours[1].flatten(1, -2), lse, rtol=0, atol=1e-12)
    found = torch.autograd.grad(ours, leaves, (grad_out, grad_lse.reshape(ours[1].shape)))
    for a, b in zip(found, grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("backend", ["gather", "reference"])
def test_equals_the_oracle(problem, backend):
    check(problem, backend)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_equals_the_oracle_without_a_native_kernel(problem, monkeypatch):
    without_native_kernels(monkeypatch)
    check(problem)


@given(problem=problems())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_problems(problem):
    check(problem)


@pytest.mark.parametrize("native", [True, False])
def test_groups_of_any_length_are_the_same(monkeypatch, native):
    if not native:
        without_native_kernels(monkeypatch)
    for rows in (1, 7, 10_000):
        monkeypatch.setattr(gather, "ROWS", rows)
        check(PROBLEMS[2])


@pytest.mark.parametrize("native", [True, False])
def test_what_nobody_sees_may_be_nan(monkeypatch, native):
    if not native:
        without_native_kernels(monkeypatch)
    q = torch.randn(1, 4, 4, 2, 8)
    k, v = torch.randn(2, 1, 4, 4, 2, 8)
    pattern = Routed(torch.tensor([[[1, -1]] * 4]), (2, 2))
    plain = windeye.attend(q, k, v, pattern)
    v = v.clone()
    v[:, :2, :2] = v[:, 2:] = torch.nan
    assert torch.equal(windeye.attend(q, k, v, pattern), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_loses_no_more_than_dense_attention_does(dtype):
    leaves, pattern, _, grad_out = inputs(Problem((3, 3), (4, 4), (4, 4), 4, heads=4))
    q, k, v = (t.detach().to(dtype).requires_grad_() for t in leaves)
    fine = [t.detach().double().requires_grad_() for t in (q, k, v)]
    truth = windeye.attend(*fine, pattern, backend="reference")
    ours = windeye.attend(q, k, v, pattern)
    assert ours.dtype == dtype
    assert (ours.double() - truth).abs().max() <= 4 * torch.finfo(dtype).eps * truth.abs().max()
    grads = torch.autograd.grad(ours, (q, k, v), grad_out.to(dtype))
    for a, b in zip(grads, torch.autograd.grad(truth, fine, grad_out.to(dtype).double()), strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= 16 * torch.finfo(dtype).eps * b.abs().max()


def test_it_is_what_auto_takes_and_compiled_graphs_hold_it():
    leaves, pattern, _, _ = inputs(PROBLEMS[2])
    q, k, v = (t.detach() for t in leaves)
    assert windeye.explain(q, k, v, pattern).backend == "gather"

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(q, k, v, index):
        return windeye.attend(q, k, v, Routed(index, (2, 3)))

    for index in (pattern.index, pattern.index.flip(2)):
        expected = windeye.attend(q, k, v, Routed(index, (2, 3)), backend="reference")
        torch.testing.assert_close(run(q, k, v, index), expected)


def test_chunks_of_a_sequence_are_regions_of_one_axis():
    q, k, v = torch.randn(3, 2, 24, 4, 8, dtype=torch.float64)
    own = torch.arange(6).expand(2, 4, 6)[..., None]
    torch.testing.assert_close(windeye.attend(q, k, v, Routed(own, 6)), windeye.attend(q, k, v, windeye.Blocks(4)))


@pytest.mark.parametrize(
    ("pattern", "options", "match"),
    [
        (Routed(torch.zeros(1, 4, 1).long(), (2, 2)), {"dropout_p": 0.1}, "its dropout does not drop the pairs"),
        (Routed(torch.zeros(3, 4, 1).long(), (2, 2)), {}, "index has batch 3 but query has 2; it must be that or 1"),
        (Routed(torch.zeros(1, 3, 4, 1).long(), (2, 2)), {}, "index has 3 heads, which do not divide the 4 heads"),
        (Routed(torch.zeros(1, 6, 1).long(), (2, 3)), {}, r"grid of query\[1\] is 4, which 3 regions do not divide"),
        (windeye.Full(), {}, r"it serves chosen regions, Full\(\) is another relation"),
    ],
)
def test_what_does_not_fit_is_named(pattern, options, match):
    q = torch.randn(2, 4, 4, 4, 8)
    with pytest.raises(ValueError, match=match):
        windeye.attend(q, q, q, pattern, backend="gather", **options)
    if not options:
        return
    windeye.attend(q, q, q, pattern, **options)  # the reference takes it


def test_statistics_see_the_same_relation():
    leaves, pattern, _, _ = inputs(PROBLEMS[2])
    q, k = (t.detach() for t in leaves[:2])
    mask = pattern.bind(q.shape[1:-2]).mask().repeat_interleave(2, dim=1)
    logits = torch.einsum("bqhd,bkhd->bhqk", q.flatten(1, 2), k.flatten(1, 2).expand(-1, -1, 4, -1)) * 5**-0.5
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    entropy = -torch.special.xlogy(weights, weights).sum(-1).transpose(1, 2)
    found = windeye.statistics(q, k, "entropy", pattern)["entropy"]
    torch.testing.assert_close(found, entropy, rtol=1e-6, atol=1e-6)
