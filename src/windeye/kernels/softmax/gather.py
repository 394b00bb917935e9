"""Attention of regions to chosen regions: a few regions at a time have their keys gathered and attend to all of them.

What is gathered never grows beyond the keys of the call, so that memory is linear in the tokens however many regions
are chosen; the backward pass gathers again. Within a region everything is seen: another native kernel does that part,
or matrix products where there is none. Gradients of keys are added up in float32, region by region.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch

from windeye.kernels.softmax import cpu, operator, triton
from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem
from windeye.patterns import Full, Routed

name = "gather"
JOINS_EXTRA = False
ROWS = 4096
"""Keys that are gathered at a time on a CPU: more do not fit its second cache."""


def can_run(problem: Problem) -> str | None:
    """Runs chosen regions on any device; the reason names what it cannot do."""
    if not isinstance(problem.pattern, Routed):
        return f"it serves chosen regions, {problem.pattern!r} is another relation"
    if problem.has_bias:
        return "it takes no bias"
    if problem.dropout_p > 0.0:
        return "its dropout does not drop the pairs that the other backends drop"
    choices = problem.pattern.planes.shape[1]
    if problem.kv_heads % choices and choices % problem.kv_heads:
        return f"{problem.kv_heads} key heads and {choices} heads that choose do not divide each other"
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered operator; its numbers come from `forward` and `backward` below."""
    pattern = problem.pattern
    assert isinstance(pattern, Routed)
    choices = pattern.planes.shape[1]
    if choices > problem.kv_heads:
        key, value = (t.repeat_interleave(choices // problem.kv_heads, dim=-2) for t in operands[1:3])
        operands = operands._replace(key=key, value=value)
    return operator.attend_by(name, problem, operands)


@dataclass(frozen=True)
class Group:
    """Some regions at a time: their queries, and where their keys are."""

    regions: slice
    """Of all regions of all batch entries and heads that choose."""
    keys: torch.Tensor
    """[regions, keep]"""
    padding: torch.Tensor | None
    """True hides a key, [regions, keep x tokens of a region]."""


def forward(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, lse)``."""
    cut = Cut(problem)
    q, k, v = cut.queries(operands.query), cut.keys(operands.key), cut.keys(operands.value)
    out = q.new_zeros((*q.shape[:-1], problem.value_dim))
    lse = q.new_full(q.shape[:-1], -torch.inf, dtype=problem.lse_dtype)
    for group in cut.groups(operands.key_padding):
        inner, kernel = cut.inner(group)
        out[group.regions], lse[group.regions] = kernel.forward(inner, gathered_of(group, q, k, v))
    return cut.laid(out), cut.laid(lse[..., None])[..., 0]


def backward(
    problem: Problem,
    operands: Operands,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor,
) -> Gradients:
    """Gradients; keys are gathered again."""
    cut = Cut(problem)
    q, k, v = cut.queries(operands.query), cut.keys(operands.key), cut.keys(operands.value)
    results = [cut.queries(t) for t in (out, lse[..., None], grad_out, grad_lse.to(lse.dtype)[..., None])]
    grad_q = torch.zeros_like(q)
    grad_k, grad_v = (torch.zeros(t.shape, dtype=problem.lse_dtype, device=t.device) for t in (k, v))
    for group in cut.groups(operands.key_padding):
        inner, kernel = cut.inner(group)
        o, l, go, gl = (t[group.regions] for t in results)  # noqa: E741
        grads = kernel.backward(inner, gathered_of(group, q, k, v), o, l[..., 0], go, gl[..., 0])
        grad_q[group.regions] = grads.query
        for total, part in ((grad_k, grads.key), (grad_v, grads.value)):
            rows = part.reshape(-1, *total.shape[1:])
            total.index_add_(0, group.keys.flatten(), rows.to(total.dtype))
    grad_k, grad_v = (cut.keys_laid(total).to(problem.dtype) for total in (grad_k, grad_v))
    return Gradients(cut.laid(grad_q), grad_k, grad_v)


def gathered_of(group: Group, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Operands:
    """What a group computes with. Hidden keys and values may be NaN, and zero times NaN is NaN: they are zeros."""
    query, key, value = query[group.regions], *(t[group.keys].flatten(1, 2) for t in (key, value))
    if group.padding is not None:
        hidden = group.padding[..., None, None]
        key, value = key.masked_fill(hidden, 0.0), value.masked_fill(hidden, 0.0)
    return Operands(query, key, value, key_padding=group.padding)


class Cut:
    """Maps as regions [batch x choices x regions, tokens of a region, heads of a choice, dim], and back."""

    def __init__(self, problem: Problem) -> None:
        assert isinstance(problem.pattern, Routed)
        self.problem, self.pattern = problem, problem.pattern
        self.counts, self.size = self.pattern.cut(problem.grid)
        _, self.size_kv = self.pattern.cut(problem.grid_kv)
        self.choices = self.pattern.planes.shape[1]

    def queries(self, t: torch.Tensor) -> torch.Tensor:
        return self._regions(t, self.size)

    def keys(self, t: torch.Tensor) -> torch.Tensor:
        return self._regions(t, self.size_kv)

    def laid(self, regions: torch.Tensor) -> torch.Tensor:
        return self._laid(regions, self.size)

    def keys_laid(self, regions: torch.Tensor) -> torch.Tensor:
        return self._laid(regions, self.size_kv)

    def groups(self, key_padding: torch.Tensor | None) -> Iterator[Group]:
        """All regions in stretches whose keys are no more than those of the call."""
        problem, index = self.problem, self.pattern.planes.long()
        regions, keep = index.shape[2:]
        tokens = prod(self.size_kv)
        if 0 in (keep, tokens, prod(self.size), problem.batch, problem.heads):
            return
        hidden: torch.Tensor | None = self.pattern.hidden()
        if hidden is not None and hidden.device.type == "cpu" and not bool(hidden.any()):
            hidden = None
        if hidden is not None:
            index = index.masked_fill(hidden, 0)
        first = torch.arange(problem.batch * self.choices, device=index.device).reshape(-1, self.choices, 1, 1)
        rows = (index.expand(problem.batch, -1, -1, -1) + regions * first).reshape(-1, keep)
        if hidden is not None:
            hidden = hidden.expand(problem.batch, -1, -1, -1).reshape(-1, keep)
        padding = None
        if key_padding is not None:
            every = key_padding[..., None, None].expand(*key_padding.shape, self.choices, 1)
            padding = self.keys(every)[..., 0, 0]
        most = problem.batch * self.choices * regions * tokens
        if index.device.type == "cpu":
            most = min(most, ROWS)
        step = max(1, most // (keep * tokens))
        for start in range(0, len(rows), step):
            at = slice(start, min(start + step, len(rows)))
            shown = None if padding is None else padding[rows[at]]
            if hidden is not None:
                nothing = hidden[at, :, None].expand(-1, -1, tokens)
                shown = nothing if shown is None else shown | nothing
            yield Group(at, rows[at], None if shown is None else shown.flatten(1).contiguous())

    def inner(self, group: Group) -> tuple[Problem, operator.Kernel]:
        """What is left inside a group: everything sees everything."""
        problem = self.problem
        inner = replace(
            problem, pattern=Full(), grid=(prod(self.size),), grid_kv=(group.keys.shape[1] * prod(self.size_kv),),
            batch=len(group.keys), heads=problem.heads // self.choices, kv_heads=problem.kv_heads // self.choices,
            has_key_padding=group.padding is not None,
        )  # fmt: skip
        native = next((kernel for kernel in (cpu, triton) if kernel.can_run(inner) is None), None)
        return inner, Products() if native is None else operator.KERNELS[native.name]

    def _regions(self, t: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        rank = len(size)
        sides = [n for pair in zip(self.counts, size, strict=True) for n in pair]
        t = t.reshape(t.shape[0], *sides, self.choices, t.shape[-2] // self.choices, t.shape[-1])
        axes = [1 + 2 * axis for axis in range(rank)], [2 + 2 * axis for axis in range(rank)]
        t = t.permute(0, 2 * rank + 1, *axes[0], *axes[1], 2 * rank + 2, 2 * rank + 3)
        return t.reshape(-1, prod(size), *t.shape[-2:])

    def _laid(self, t: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        rank = len(size)
        heads, dim = t.shape[-2:]
        t = t.reshape(self.problem.batch, self.choices, *self.counts, *size, heads, dim)
        axes = [axis for pair in zip(range(2, 2 + rank), range(2 + rank, 2 + 2 * rank), strict=True) for axis in pair]
        t = t.permute(0, *axes, 1, 2 + 2 * rank, 3 + 2 * rank)
        grid = [count * side for count, side in zip(self.counts, size, strict=True)]
        return t.reshape(self.problem.batch, *grid, self.choices * heads, dim)


class Products:
    """Everything sees everything, by matrix products: for devices and types that no native kernel serves."""

    def forward(self, problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._logits(problem, operands)
        lse = torch.logsumexp(logits, dim=-1)
        weights = torch.exp(logits - self._finite(lse)[..., None])
        out = torch.einsum("bhgqk,bkhd->bqhgd", weights, operands.value.to(weights.dtype))
        return out.flatten(2, 3).to(problem.dtype), lse.flatten(1, 2).transpose(1, 2)

    def backward(
        self,
        problem: Problem,
        operands: Operands,
        out: torch.Tensor,
        lse: torch.Tensor,
        grad_out: torch.Tensor,
        grad_lse: torch.Tensor,
    ) -> Gradients:
        wide = problem.lse_dtype
        shape = (problem.kv_heads, problem.heads // problem.kv_heads)
        query_, out_, grad = (torch.unflatten(t.to(wide), 2, shape) for t in (operands.query, out, grad_out))
        lse_, grad_lse_ = (torch.unflatten(t.transpose(1, 2), 1, shape) for t in (lse, grad_lse))
        logits = self._logits(problem, operands)
        weights = torch.exp(logits - self._finite(lse_)[..., None])
        rest = grad_lse_ - torch.einsum("bqhgd,bqhgd->bhgq", grad, out_)
        grad_logits = weights * (torch.einsum("bqhgd,bkhd->bhgqk", grad, operands.value.to(wide)) + rest[..., None])
        grad_q = problem.scale * torch.einsum("bhgqk,bkhd->bqhgd", grad_logits, operands.key.to(wide)).flatten(2, 3)
        grad_k = problem.scale * torch.einsum("bhgqk,bqhgd->bkhd", grad_logits, query_)
        grad_v = torch.einsum("bhgqk,bqhgd->bkhd", weights, grad)
        return Gradients(grad_q.to(problem.dtype), grad_k, grad_v)

    def _logits(self, problem: Problem, operands: Operands) -> torch.Tensor:
        """[batch, kv_heads, heads that share them, queries, keys]"""
        wide = problem.lse_dtype
        grouped = torch.unflatten(operands.query.to(wide), 2, (problem.kv_heads, -1))
        logits = problem.scale * torch.einsum("bqhgd,bkhd->bhgqk", grouped, operands.key.to(wide))
        if operands.key_padding is not None:
            logits = logits.masked_fill(operands.key_padding[:, None, None, None], -torch.inf)
        return logits

    def _finite(self, lse: torch.Tensor) -> torch.Tensor:
        """Rows that see nothing get weights of zero and no NaN."""
        return lse.masked_fill(lse == -torch.inf, 0.0)


operator.KERNELS[name] = sys.modules[__name__]
