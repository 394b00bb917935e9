"""Launching the kernels: tables on the device, strides and options of one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton

from windeye.kernels.softmax.dropout import threshold
from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem, check_reach
from windeye.kernels.softmax.triton import relative, tuning
from windeye.kernels.softmax.triton.arguments import Dropout, Extra, Lists, Pulls, Relation, Side, View
from windeye.kernels.softmax.triton.bias import grad_bias
from windeye.kernels.softmax.triton.gradients import grad_key_value, grad_query
from windeye.kernels.softmax.triton.output import attention
from windeye.kernels.softmax.triton.plan import AXES, AxisBoxes, Intervals, Meetings, Plan, axis_classes, plan
from windeye.kernels.softmax.triton.sizes import Kernel, Sizes, width
from windeye.patterns import Bound

LOG2E = 1.4426950408889634
SIXTEEN = 16
"""Bytes that a step of a descriptor must be whole multiples of."""
PROGRAMS = 4096
"""Programs that add up the gradient of a bias table, if there is work for so many."""


@dataclass(frozen=True, eq=False)
class Tables:
    """A plan on a device, in the groups in which the kernels take it."""

    plan: Plan
    queries: Side
    keys: Side
    of_queries: Lists
    of_keys: Lists
    relation: Relation
    inverse: Relation


@lru_cache(maxsize=64)
def tables(bound: Bound, queries: int, keys: int, device: torch.device, shape: int = 0) -> Tables:
    """The tables of a bound pattern, kept per device."""
    work = plan(bound, queries, keys, shape)

    def side(grid: tuple[int, ...], axes: tuple[AxisBoxes, ...]) -> Side:
        steps = axis_classes(bound)
        rows = tuple(axis.count // step for axis, step in zip(axes, steps, strict=True))
        return Side.of((1,) * (AXES - len(grid)) + grid, steps, rows)

    def lists(meetings: Meetings, others: Side, axes: tuple[AxisBoxes, ...]) -> Lists:
        arrays = meetings.begin, meetings.middle, origins(others, axes, meetings.other)
        return Lists(*(_put(array, device) for array in arrays))

    def relation(found: Intervals) -> Relation:
        return Relation(*(_put(array, device) for array in (found.start, found.span, found.place)))

    q_side, kv_side = side(bound.grid, work.queries), side(bound.grid_kv, work.keys)
    return Tables(
        work, q_side, kv_side, lists(work.of_queries, kv_side, work.keys), lists(work.of_keys, q_side, work.queries),
        relation(work.relation), relation(work.inverse),
    )  # fmt: skip


def origins(side: Side, axes: tuple[AxisBoxes, ...], boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.signedinteger]:
    """Boxes of a side, by their numbers, as lists hold them. Each must hold a token."""
    place = np.unravel_index(boxes, [axis.count for axis in axes])
    first = [axis.coordinates[at * axis.size].astype(np.int64) for axis, at in zip(axes, place, strict=True)]
    return side.packed(*first).astype(np.int32 if side.narrow else np.int64)


@dataclass(frozen=True)
class Call:
    """Inputs of one call in the form that the kernels take."""

    problem: Problem
    views: tuple[View, View, View]
    hidden: torch.Tensor | None
    bias: torch.Tensor | None
    dropout: Dropout | None
    extra: tuple[View, View, Dropout | None] | None
    """Keys and values that every query sees, and the dropout of their pairs."""

    @classmethod
    def of(cls, problem: Problem, operands: Operands) -> Call:
        hidden = operands.key_padding
        if hidden is not None:
            hidden = hidden.contiguous().view(torch.uint8)
        if operands.bias is not None:
            check_reach(problem.bound, operands.bias.shape[1:])
        views = view(operands.query), view(operands.key), view(operands.value)
        extra = None
        if operands.extra_key is not None and operands.extra_value is not None:
            extra = view(operands.extra_key), view(operands.extra_value), dropout(problem, operands.extra_seed)
        return cls(problem, views, hidden, operands.bias, dropout(problem, operands.seed), extra)

    def inputs(self, work: Plan) -> tuple[Any, ...]:
        """What all kernels take."""
        bias = None if self.bias is None else relative.argument(self.problem.bound, self.bias, work)
        return (*self.views, self.hidden, bias, self.dropout)

    def besides(self, chosen: Sizes) -> Extra | None:
        """The extra keys in boxes of this size."""
        if self.extra is None:
            return None
        key, value, dropout = self.extra
        return Extra(key, value, sequence(key.base.shape[1], chosen.keys), dropout)

    @property
    def scales(self) -> tuple[float, float]:
        """Of logits, and of logits in units of log 2."""
        return self.problem.scale, self.problem.scale * LOG2E

    @property
    def raw(self) -> bool:
        """Whether kernels may compare dot products before they are scaled."""
        return self.bias is None and self.problem.scale * LOG2E >= torch.finfo(torch.float32).tiny

    @property
    def heads(self) -> tuple[int, int]:
        return self.problem.heads, self.problem.heads // self.problem.kv_heads

    def options(self, work: Plan, chosen: Sizes, relation: Intervals) -> dict[str, Any]:
        """What the kernels are compiled for, and how they are launched."""
        p = self.problem
        return {
            "head_dim": p.head_dim, "value_dim": p.value_dim, "WIDTH": width(p.head_dim),
            "VALUE_WIDTH": width(p.value_dim), "QUERIES": tuple(axis.size for axis in work.queries),
            "KEYS": tuple(axis.size for axis in work.keys), "RANK": work.rank, "CHECKS": relation.checks,
            "RAW": self.raw, "PRECISION": precision(p), "num_warps": chosen.warps, "num_stages": chosen.stages,
            "enable_fp_fusion": True,  # Triton is about to change what it does by itself
        }  # fmt: skip

    def tables(self, chosen: Sizes) -> Tables:
        return tables(self.problem.bound, chosen.queries, chosen.keys, self.problem.device, chosen.shape)

    def best(self, kernel: Kernel, run: Callable[[Sizes], None]) -> None:
        """Run a kernel with its best sizes. Launches go to the current device, which need not be that of the
        tensors."""
        device = self.problem.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            run(tuning.best(self.problem, kernel, run))


def forward(call: Call, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Write outputs and normalisers, which are dense."""
    p = call.problem

    def run(chosen: Sizes) -> None:
        t = call.tables(chosen)
        attention[(t.queries.boxes * p.batch * p.heads,)](
            *call.inputs(t.plan), call.besides(chosen), out, lse, call.scales[1], *call.heads, t.queries, t.keys,
            t.of_queries, t.relation, TILES=tiles(chosen, t, *call.views[1:]),
            **call.options(t.plan, chosen, t.plan.relation),
        )  # fmt: skip

    call.best("attention", run)


def pulls(out: torch.Tensor, lse: torch.Tensor, grad_out: torch.Tensor, grad_lse: torch.Tensor) -> Pulls:
    """What the backward pass is given. What each logit's gradient has subtracted is the mean of the weights' gradients,
    minus that of the log-sum-exp."""
    less = (out.float() * grad_out.float()).sum(dim=-1) - grad_lse.float()
    norm = torch.where(lse == -torch.inf, torch.inf, lse * LOG2E)
    # A gradient may be one number that is seen everywhere; rows that do not lie in one piece are fetched slowly.
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    return Pulls(norm.contiguous(), less.contiguous(), view(grad_out))


def backward(call: Call, pulls: Pulls, grads: Gradients) -> None:
    """Write the gradients, which are dense."""
    p = call.problem

    def of_queries(chosen: Sizes) -> None:
        t = call.tables(chosen)
        grad_query[(t.queries.boxes * p.batch * p.heads,)](
            *call.inputs(t.plan), call.besides(chosen), pulls, grads.query, *call.scales, *call.heads, t.queries,
            t.keys, t.of_queries, t.relation, TILES=tiles(chosen, t, *call.views[1:]),
            **call.options(t.plan, chosen, t.plan.relation),
        )  # fmt: skip

    def of_keys(chosen: Sizes) -> None:
        t = call.tables(chosen)
        grad_key_value[(t.keys.boxes * p.batch * p.kv_heads,)](
            *call.inputs(t.plan), pulls, grads.key, grads.value, *call.scales, *call.heads, t.queries, t.keys,
            t.of_keys, t.inverse, TILES=tiles(chosen, t, call.views[0], pulls.grad_out),
            **call.options(t.plan, chosen, t.plan.inverse),
        )  # fmt: skip

    def of_extra_keys(chosen: Sizes) -> None:
        t, extra = call.tables(chosen), call.besides(chosen)
        assert extra is not None
        options = call.options(t.plan, chosen, t.plan.inverse) | {"KEYS": (1, 1, chosen.keys), "CHECKS": ()}
        grad_key_value[(extra.side.boxes * p.batch * p.kv_heads,)](
            call.views[0], extra.key, extra.value, None, None, extra.dropout, pulls, grads.extra_key,
            grads.extra_value, *call.scales, *call.heads, t.queries, extra.side, everyone(t, extra.side.boxes), None,
            TILES=False, **options,
        )  # fmt: skip

    call.best("grad_query", of_queries)
    call.best("grad_key_value", of_keys)
    if call.extra is not None:
        call.best("grad_key_value", of_extra_keys)
    if grads.bias is not None:
        grads.bias.copy_(gradient_of_bias(call, pulls, tuple(grads.bias.shape[1:])))


@lru_cache(maxsize=64)
def everyone(t: Tables, boxes: int) -> Lists:
    """Lists of so many boxes that meet all queries; boxes that are full of them come first."""
    axes, device = t.plan.queries, t.of_queries.begin.device
    there = [axis.coordinates.reshape(-1, axis.size) >= 0 for axis in axes]
    some, full = (reduce(np.logical_and.outer, [f(axis, axis=1) for axis in there]).ravel() for f in (np.any, np.all))
    order = np.concatenate([np.flatnonzero(full), np.flatnonzero(some & ~full)]).astype(np.int32)
    begin = np.arange(boxes + 1, dtype=np.int32) * len(order)
    arrays = begin, begin[:-1] + int(full.sum()), np.tile(origins(t.queries, axes, order), boxes)
    return Lists(*(_put(array, device) for array in arrays))


def sequence(length: int, size: int) -> Side:
    """A sequence in boxes of so many tokens."""
    boxes = -(-length // size)
    return Side.of((1, 1, length), (1, 1, 1), (1, 1, boxes))


def dropout(problem: Problem, seed: torch.Tensor | None) -> Dropout | None:
    """Which pairs are dropped, by a number that the device waits for, not the host."""
    if problem.dropout_p == 0.0:
        return None
    assert seed is not None
    seed = seed.to(problem.device, non_blocking=True)
    return Dropout(seed, threshold(problem.dropout_p), 1.0 / (1.0 - problem.dropout_p))


def gradient_of_bias(call: Call, pulls: Pulls, offsets: tuple[int, ...]) -> torch.Tensor:
    """[heads, *offsets] in float32; every sum is taken in one order."""
    p = call.problem
    found = torch.empty((p.heads, *offsets), dtype=torch.float32, device=p.device)

    def run(chosen: Sizes) -> None:
        t = call.tables(chosen)
        sums, begin, q_boxes, kv_boxes, lanes = _sums(
            p.bound, chosen.queries, chosen.keys, chosen.shape, offsets, p.device
        )
        share = -(-p.batch * sums.groups * p.heads // PROGRAMS)
        shares = -(-p.batch // share)
        differences = prod(sums.extents)
        partial = torch.empty((shares, p.heads, sums.groups * differences), dtype=torch.float32, device=p.device)
        grad_bias[(sums.groups * p.heads * shares,)](
            *call.inputs(t.plan), pulls, partial, call.scales[1], p.batch, share, *call.heads, t.queries, t.keys,
            sums.groups, begin, q_boxes, kv_boxes, t.relation, EXTENTS=sums.extents,
            OFFSETS=min(differences, chosen.keys),
            **call.options(t.plan, chosen, t.plan.relation),
        )  # fmt: skip
        padded = torch.nn.functional.pad(partial.sum(dim=0), (0, 1))
        found.copy_(padded[:, lanes].sum(dim=-1).reshape(found.shape))

    call.best("grad_bias", run)
    return found


@lru_cache(maxsize=64)
def _sums(
    bound: Bound, queries: int, keys: int, shape: int, offsets: tuple[int, ...], device: torch.device
) -> tuple[Any, ...]:
    sums, t = relative.sums(bound, queries, keys, shape, offsets), tables(bound, queries, keys, device, shape)
    boxes = origins(t.queries, t.plan.queries, sums.q_boxes), origins(t.keys, t.plan.keys, sums.kv_boxes)
    return sums, *(_put(array, device) for array in (sums.begin, *boxes, sums.found))


def precision(problem: Problem) -> str:
    """How tiles are multiplied: half types as they are; float32 as torch's own products, "highest" as three TF32
    products, as exact as float32, and less as one."""
    if problem.device.type == "cpu" and problem.dtype == torch.bfloat16:
        return "wide"
    strict = problem.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return "tf32x3" if strict else "tf32"


def tiles(chosen: Sizes, t: Tables, *views: View) -> bool:
    """Whether boxes of these tensors are fetched as tiles: where that is chosen, rows lie in one piece, all steps are
    whole multiples of 16 bytes, and tokens of a box lie next to each other."""
    if not chosen.tiles or any((side.step0, side.step1, side.step2) != (1, 1, 1) for side in (t.queries, t.keys)):
        return False
    for view in views:
        size = view.base.element_size()
        steps = (view.batch, view.axis0, view.axis1, view.axis2, view.head)
        if view.dim != 1 or any(step <= 0 or step * size % SIXTEEN for step in steps):
            return False
        if view.base.device.type == "cuda" and view.base.data_ptr() % SIXTEEN:
            return False
    triton.set_allocator(_scratch)
    return True


def _scratch(size: int, _alignment: int, _stream: int | None) -> torch.Tensor:
    """Memory in which programs make descriptors."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def _put(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def view(tensor: torch.Tensor) -> View:
    batch, *axes, head, dim = tensor.stride()
    # Of an axis that is not there any step will do; descriptors want one of 16 bytes.
    first, second, last = [SIXTEEN] * (AXES - len(axes)) + axes
    return View(tensor, batch, first, second, last, head, dim)
