"""Attention problems that every backend is put through, and inputs for them."""

from dataclasses import dataclass, replace
from math import prod

import torch
from hypothesis import strategies as st

from oracles.attention import attention, spread_bias
from windeye.patterns import (
    Blocks,
    Causal,
    Documents,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Pattern,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    pattern: Pattern
    grid: tuple[int, ...]
    grid_kv: tuple[int, ...] | None = None
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 5
    value_dim: int = 3
    bias: tuple[int, ...] | None = None
    """Reach of a relative table per axis."""
    dilation: tuple[int, ...] = ()
    padding: bool = False
    layout: str = "plain"

    def __str__(self):
        facts = [self.pattern.spec, "x".join(map(str, self.grid))]
        facts += [f"kv {self.grid_kv}"] if self.grid_kv else []
        facts += [f"{self.heads}/{self.kv_heads} heads {self.head_dim}/{self.value_dim}", self.layout]
        return " ".join(facts + ["bias"] * (self.bias is not None) + ["padding"] * self.padding)


PROBLEMS = [
    Problem(Full(), (7,)),
    Problem(Causal(), (9,), batch=2),
    Problem(Causal(), (3, 4)),
    Problem(Causal(), (4,), (9,)),
    Problem(Sliding(4), (33,), heads=4, kv_heads=2, head_dim=16, value_dim=16),
    Problem(Sliding(5, is_causal=False), (17,), (23,)),
    Problem(Neighborhood(5), (13,)),
    Problem(Neighborhood(1), (5, 3)),
    Problem(Neighborhood(3), (7, 5), batch=2, heads=3, kv_heads=1),
    Problem(Neighborhood((4, 3), stride=(2, 3)), (9, 8), head_dim=8, value_dim=8),
    Problem(Neighborhood(3, dilation=2), (7, 11)),
    Problem(Neighborhood((2, 3, 2), stride=(1, 2, 1), dilation=(2, 1, 1)), (5, 4, 3)),
    Problem(Neighborhood((3, 3), is_causal=(True, False)), (6, 5)),
    Problem(Neighborhood(4, stride=2, is_causal=True), (11,)),
    Problem(Neighborhood(5, boundary="truncate"), (6, 7)),
    Problem(Neighborhood(3, dilation=2, boundary="wrap"), (6, 8)),
    Problem(Neighborhood((-1, 3)), (4, 9)),
    Problem(Neighborhood(3), (4, 5), (8, 5)),
    Problem(Blocks(3, shift=1), (7, 8)),
    Problem(Halo(3, 2), (8, 7)),
    Problem(TileWindow(2, 3), (7, 9)),
    Problem(Inward((3, -1)), (9, 4)),
    Problem(Documents((3, 0, 5, 4)) & Causal(), (12,)),
    Problem(Sliding(3) | Sinks(2), (14,)),
    Problem(Causal() | Prefix(3), (8,)),
    Problem(Neighborhood(3) | Neighborhood(3, dilation=2), (7, 9)),
    Problem(Neighborhood(5, boundary="wrap") & Blocks(4), (9, 8)),
    Problem(Neighborhood(3), (7, 6), bias=(2, 2)),
    Problem(Neighborhood((3, 2), dilation=(2, 3)), (7, 8), bias=(3, 2), dilation=(2, 3), heads=4, kv_heads=2),
    Problem(Neighborhood(4), (9,), bias=(3,), padding=True, batch=2),
    Problem(Sliding(6), (15,), padding=True, batch=3),
    Problem(Neighborhood(3, boundary="truncate"), (5, 5), padding=True, heads=4, kv_heads=4),
    Problem(Neighborhood(3), (6, 7), layout="permuted", head_dim=16, value_dim=16),
    Problem(Neighborhood(3), (6, 7), layout="sliced"),
    Problem(Neighborhood(3), (6, 7), layout="expanded", batch=2),
    Problem(Neighborhood(7, stride=3), (23, 29), heads=1, kv_heads=1, head_dim=33, value_dim=17),
    Problem(Sliding(70), (151,), heads=1, kv_heads=1, head_dim=64, value_dim=64),
    Problem(Full(), (1,)),
    Problem(Neighborhood((3, 3, 3)), (3, 5, 7), heads=1, kv_heads=1, head_dim=1, value_dim=1),
    # A last axis of more than 64 tokens: tiles are walked in several strips, the last one incomplete.
    Problem(Neighborhood((2, 5)), (2, 131), heads=1, kv_heads=1),
    Problem(Neighborhood((1, 2, 4), stride=(1, 1, 2)), (1, 2, 83), heads=1, kv_heads=1, bias=(1, 1, 3)),
    Problem(Neighborhood((1, 3), dilation=(1, 2)) | Blocks(40), (2, 90), heads=1, kv_heads=1),
]


@dataclass(frozen=True)
class Inputs:
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    hidden: torch.Tensor | None
    grad_out: torch.Tensor
    grad_lse: torch.Tensor
    scale: float

    def leaves(self):
        return [t for t in (self.query, self.key, self.value, self.bias) if t is not None]

    def cast(self, dtype):
        """The same numbers as leaves of another type, in the same memory layout."""
        return replace(
            self,
            query=_like(self.query, dtype),
            key=_like(self.key, dtype),
            value=_like(self.value, dtype),
            bias=None if self.bias is None else self.bias.detach().to(dtype).requires_grad_(),
            grad_out=self.grad_out.to(dtype),
        )


def _like(tensor, dtype):
    base = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype)
    if 0 in tensor.stride():
        base = tensor.detach().to(dtype)[:1].expand(tensor.shape)
        return base.requires_grad_()
    return base.copy_(tensor.detach()).requires_grad_()


def inputs(problem, dtype=torch.float64):
    """Random tensors in the layout that the problem asks for; the numbers are exact in bfloat16."""
    generator = torch.Generator().manual_seed(prod(problem.grid) + problem.head_dim)
    grid_kv = problem.grid_kv or problem.grid

    def random(*shape):
        return torch.randn(shape, generator=generator).to(torch.bfloat16).to(dtype)

    def tensor(grid, heads, dim):
        if problem.layout == "permuted":  # heads first in memory, as [batch, heads, *grid, dim]
            return random(problem.batch, heads, *grid, dim).movedim(1, -2)
        if problem.layout == "sliced":  # every second of more heads, dims and tokens than there are
            wide = random(problem.batch, *(2 * n for n in grid), 2 * heads, 2 * dim)
            return wide[(slice(None), *[slice(0, None, 2)] * (len(grid) + 2))]
        if problem.layout == "expanded":  # one batch entry seen several times
            return random(1, *grid, heads, dim).expand(problem.batch, *grid, heads, dim)
        return random(problem.batch, *grid, heads, dim)

    query = tensor(problem.grid, problem.heads, problem.head_dim)
    key = tensor(grid_kv, problem.kv_heads, problem.head_dim)
    value = tensor(grid_kv, problem.kv_heads, problem.value_dim)
    bias = random(problem.heads, *(2 * r + 1 for r in problem.bias)) if problem.bias else None
    hidden = torch.rand(problem.batch, *grid_kv, generator=generator) < 0.3 if problem.padding else None
    if hidden is not None and problem.batch > 1:
        hidden[0] = True  # one batch entry in which nobody sees anything
    rows = (problem.batch, *problem.grid, problem.heads)
    leaves = [t.detach().requires_grad_() for t in (query, key, value)]
    return Inputs(
        *leaves, bias.requires_grad_() if bias is not None else None, hidden,
        random(*rows, problem.value_dim), random(*rows), scale=0.4,
    )  # fmt: skip


def truth(problem, data):
    """``(out, lse)`` of the oracle on the problem's grid."""
    bound = problem.pattern.bind(problem.grid, problem.grid_kv)
    bias = None
    if data.bias is not None:
        bias = spread_bias(data.bias.double(), problem.grid, problem.dilation or (1,) * len(problem.grid))
    hidden = None if data.hidden is None else data.hidden.flatten(1)
    flat = [t.flatten(1, -3) for t in (data.query, data.key, data.value)]
    out, lse = attention(*flat, bound.mask(), scale=data.scale, bias=bias, hidden=hidden)
    rows = (problem.batch, *problem.grid, problem.heads)
    return out.reshape(*rows, problem.value_dim), lse.reshape(rows)


def gradients(out, lse, data):
    """Gradients of every leaf for the problem's cotangents; rows that saw nothing have no log-sum-exp to pull at."""
    finite = torch.isfinite(lse)
    loss = (out.double() * data.grad_out.double()).sum()
    loss = loss + (lse.double()[finite] * data.grad_lse[finite]).sum()
    loss = loss + sum(0 * t.sum() for t in data.leaves())  # a graph even where nobody sees anything
    return torch.autograd.grad(loss, data.leaves())


@st.composite
def problems(draw):
    """Random problems of small size, windows with everything mixed."""
    rank = draw(st.integers(1, 3))
    most = {1: 24, 2: 8, 3: 4}[rank]
    grid = tuple(draw(st.integers(1, most)) for _ in range(rank))
    axes = []
    boundary = draw(st.sampled_from(("clamp", "truncate", "wrap")))
    for length in grid:
        dilation = draw(
            st.sampled_from([d for d in (1, 2, 3) if d <= length and (boundary != "wrap" or length % d == 0)])
        )
        window = draw(st.integers(1, length // dilation))
        axes.append((window, draw(st.integers(1, window)), dilation, draw(st.booleans())))
    window, stride, dilation, causal = zip(*axes, strict=True)
    pattern = Neighborhood(window, stride, dilation, causal, boundary)
    if draw(st.booleans()):
        other = draw(st.sampled_from([Blocks(2), Halo(2, 1), Full(), Causal(), Inward(2)]))
        pattern = pattern & other if draw(st.booleans()) else pattern | other
    kv_heads = draw(st.sampled_from((1, 2)))
    return Problem(
        pattern, grid, batch=draw(st.sampled_from((1, 2))), heads=kv_heads * draw(st.sampled_from((1, 3))),
        kv_heads=kv_heads, head_dim=draw(st.sampled_from((1, 4, 7, 16))), value_dim=draw(st.sampled_from((1, 5, 16))),
        padding=draw(st.booleans()), layout=draw(st.sampled_from(("plain", "permuted", "sliced"))),
    )  # fmt: skip
