"""Launching the kernels: sizes of boxes, tables on the device and strides of one call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from windeye.kernels.softmax.problem import Problem
from windeye.kernels.softmax.triton.gradients import grad_key_value, grad_query
from windeye.kernels.softmax.triton.output import attention
from windeye.kernels.softmax.triton.plan import AXES, AxisBoxes, Meetings, Plan, plan
from windeye.patterns import Bound

LOG2E = 1.4426950408889634
SMALLEST_WIDTH = 16
"""Of a matrix product on tensor cores."""


@dataclass(frozen=True)
class Sizes:
    """Queries and keys per box, and how a program is laid out."""

    queries: int
    keys: int
    warps: int
    stages: int


def sizes(problem: Problem, *, backward: bool) -> Sizes:
    """Boxes that fit shared memory; wide heads and float32 take smaller ones."""
    wide = max(problem.head_dim, problem.value_dim) * (2 if problem.dtype == torch.float32 else 1)
    if backward:
        return Sizes(64, 64, 4, 2) if wide <= 128 else Sizes(32, 32, 4, 1)
    if wide <= 128:
        return Sizes(128, 64, 8 if wide > 64 else 4, 3)
    return Sizes(64, 32, 4, 2)


@dataclass(frozen=True, eq=False)
class Tables:
    """A plan on a device, in the order in which the kernels take it."""

    plan: Plan
    axes: list[Any]
    pattern: list[torch.Tensor]
    of_queries: list[torch.Tensor]
    of_keys: list[torch.Tensor]


@lru_cache(maxsize=64)
def tables(bound: Bound, queries: int, keys: int, device: torch.device) -> Tables:
    """The tables of a bound pattern, kept per device."""
    work = plan(bound, queries, keys)

    def put(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def side(axes: tuple[AxisBoxes, ...]) -> list[Any]:
        return [*(put(axis.coordinates) for axis in axes), axes[1].count, axes[2].count]

    def listed(meetings: Meetings) -> list[torch.Tensor]:
        return [put(meetings.begin), put(meetings.middle), put(meetings.other)]

    pattern = [put(work.start), put(work.span), put(work.place)]
    return Tables(work, side(work.queries) + side(work.keys), pattern, listed(work.of_queries), listed(work.of_keys))


@dataclass(frozen=True)
class Call:
    """Inputs of one call in the form that the kernels take."""

    problem: Problem
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    hidden: torch.Tensor | None

    @classmethod
    def of(
        cls,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding: torch.Tensor | None,
    ) -> Call:
        hidden = None if key_padding is None else key_padding.contiguous().view(torch.uint8)
        return cls(problem, query, key, value, hidden)

    @property
    def inputs(self) -> list[Any]:
        """Queries, keys and values with their strides: batch, three axes, heads, dim."""
        return [item for t in (self.query, self.key, self.value) for item in (t, *_strides(t))]

    @property
    def heads(self) -> list[int]:
        return [self.problem.heads, self.problem.heads // self.problem.kv_heads]

    @property
    def lengths(self) -> list[int]:
        """Tokens and the two inner axes, of queries and of keys."""
        return [n for grid in (_padded(self.problem.grid), _padded(self.problem.grid_kv))
                for n in (grid[0] * grid[1] * grid[2], grid[1], grid[2])]  # fmt: skip

    def options(self, work: Plan, chosen: Sizes) -> dict[str, Any]:
        """What the kernels are compiled for, and how they are launched."""
        p = self.problem
        return {
            "head_dim": p.head_dim, "value_dim": p.value_dim, "WIDTH": width(p.head_dim),
            "VALUE_WIDTH": width(p.value_dim),
            **{f"Q{axis}": work.queries[axis].size for axis in range(AXES)},
            **{f"K{axis}": work.keys[axis].size for axis in range(AXES)},
            "RANK": work.rank, "TERMS": work.terms, "HIDDEN": self.hidden is not None,
            "PRECISION": precision(p),
            "num_warps": chosen.warps, "num_stages": chosen.stages,
        }  # fmt: skip

    def on_device(self) -> AbstractContextManager[Any]:
        """Launches go to the current device, which need not be that of the tensors."""
        device = self.problem.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def forward(call: Call, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Write outputs and normalisers, which are dense."""
    p, chosen = call.problem, sizes(call.problem, backward=False)
    t = tables(p.bound, chosen.queries, chosen.keys, p.device)
    with call.on_device():
        attention[(boxes(t.plan.queries), p.batch * p.heads)](
            *call.inputs, call.hidden, out, lse, p.scale * LOG2E, *call.heads, *call.lengths, *t.of_queries,
            *t.axes, *t.pattern, **call.options(t.plan, chosen),
        )  # fmt: skip


def backward(
    call: Call,
    lse: torch.Tensor,
    grad_out: torch.Tensor,
    delta: torch.Tensor,
    grad_query_: torch.Tensor,
    grad_key: torch.Tensor,
    grad_value: torch.Tensor,
) -> None:
    """Write all gradients, which are dense."""
    p, chosen = call.problem, sizes(call.problem, backward=True)
    t = tables(p.bound, chosen.queries, chosen.keys, p.device)
    options = call.options(t.plan, chosen)
    shared = (call.hidden, lse, delta, grad_out)
    with call.on_device():
        grad_query[(boxes(t.plan.queries), p.batch * p.heads)](
            *call.inputs, *shared, grad_query_, p.scale, *call.heads, *call.lengths, *t.of_queries[::2], *t.axes,
            *t.pattern, **options,
        )  # fmt: skip
        grad_key_value[(boxes(t.plan.keys), p.batch * p.kv_heads)](
            *call.inputs, *shared, grad_key, grad_value, p.scale, *call.heads, *call.lengths, *t.of_keys[::2], *t.axes,
            *t.pattern, **options,
        )  # fmt: skip


def precision(problem: Problem) -> str:
    """How tiles are multiplied: half types as they are, float32 as three TF32 products, as exact as float32."""
    if problem.device.type == "cpu" and problem.dtype == torch.bfloat16:
        return "wide"
    return "tf32x3" if problem.dtype == torch.float32 else "tf32"


def boxes(axes: tuple[AxisBoxes, ...]) -> int:
    """Boxes of a grid."""
    return axes[0].count * axes[1].count * axes[2].count


def width(dim: int) -> int:
    """The power of two that holds so many coordinates."""
    return max(SMALLEST_WIDTH, 1 << max(dim - 1, 0).bit_length())


def _padded(grid: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (AXES - len(grid)) + grid


def _strides(tensor: torch.Tensor) -> list[int]:
    batch, *axes, head, dim = tensor.stride()
    return [batch, *([0] * (AXES - len(axes))), *axes, head, dim]
