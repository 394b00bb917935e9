"""The C++ kernel: forward and backward on any x86 or Arm processor, with memory that does not grow with the tokens.

It reads tensors in place through their strides, so no layout is copied; float32 accumulation for half types. Each lane
of a vector is one query (in the backward pass also one key), and rows are broadcast to all lanes: nothing is
transposed, masks are bits, and rows that no lane sees are never read.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch

from windeye.kernels import native
from windeye.kernels.softmax import operator
from windeye.kernels.softmax.dropout import threshold
from windeye.kernels.softmax.lanes import AXES, plan
from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem, bias_steps, check_reach
from windeye.patterns import Allowed, Bound, Expiry, Lifetimes, Routed

name = "cpu"
JOINS_EXTRA = False
_BIAS_CHUNKS = 8


def can_run(problem: Problem) -> str | None:
    """Runs every pattern of interval tables, and lifetimes, on the CPU; the reason names what it cannot do."""
    if problem.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {problem.device.type}"
    if native.cpu is None:
        return native.missing
    if isinstance(problem.pattern, Allowed | Routed):
        return "it reads interval tables and lifetimes, the pattern is neither"
    if len(problem.grid) > AXES:
        return f"it knows grids of up to {AXES} axes, got {len(problem.grid)}"
    if problem.has_bias and "wrap" in problem.pattern.spec:
        return 'a bias table with boundary "wrap" has no single offset per pair; use backend="reference"'
    return None


def visited_pairs(bound: Bound, dtype: torch.dtype) -> int:
    """Pairs that the kernel computes for each relation, lanes that idle at the rim of the grid counted; for lifetimes,
    allowed pairs."""
    if isinstance(bound, Lifetimes):
        return bound.pairs()
    return plan(bound, _lanes(dtype)).forward.visited_pairs if bound.terms else 0


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered operator; its numbers come from `forward` and `backward` below."""
    return operator.attend_by(name, problem, operands)


def forward(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, lse)``, written in one pass over the visible keys."""
    query = operands.query
    out = query.new_empty((*query.shape[:-1], problem.value_dim))
    native.prefer_huge_pages(out)
    lse = query.new_empty(query.shape[:-1], dtype=problem.lse_dtype)
    if out.numel() == 0 or _sees_nothing(problem):
        return out.zero_(), lse.fill_(-torch.inf)
    call, _alive = _call(problem, operands, out, lse)
    call.forward()
    return out, lse


def backward(
    problem: Problem,
    operands: Operands,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor,
) -> Gradients:
    """Gradients in two walks over the visible pairs; bit-equal on every run and with any number of threads."""
    bias = operands.bias
    grads = [torch.empty(t.shape, dtype=t.dtype) for t in operands[:3]]
    native.prefer_huge_pages(*grads)
    grad_bias = None if bias is None else torch.zeros_like(bias)
    if _sees_nothing(problem) or grads[0].numel() == 0 or grads[1].numel() == 0:
        return Gradients(grads[0].zero_(), grads[1].zero_(), grads[2].zero_(), grad_bias)
    total = None
    if isinstance(problem.pattern, Expiry) and bias is not None:
        total = torch.zeros(bias.shape, dtype=lse.dtype)
    call, _alive = _call(problem, operands, out, lse, total, both=True)
    delta = torch.empty_like(lse)
    grad_lse = grad_lse.to(lse.dtype).contiguous()
    call.set_gradients(_strides(grad_out), grad_lse.data_ptr(), delta.data_ptr(), *(_strides(grad) for grad in grads))
    partial = None
    if bias is not None and total is None:
        tiles = prod(len(axis.begin) - 1 for axis in plan(problem.bound, _lanes(problem.dtype)).forward.axes)
        chunks = min(tiles, _BIAS_CHUNKS)
        partial = torch.zeros((problem.batch, problem.heads, chunks, *bias.shape[1:]), dtype=lse.dtype)
        call.set_bias_gradient(partial.data_ptr(), chunks)
    call.backward()
    if bias is not None and total is not None:
        grad_bias = total.to(bias.dtype)
    elif bias is not None and partial is not None:
        grad_bias = partial.sum(dim=(0, 2)).to(bias.dtype)
    return Gradients(grads[0], grads[1], grads[2], grad_bias)


def _sees_nothing(problem: Problem) -> bool:
    if isinstance(problem.pattern, Expiry):
        return 0 in problem.grid_kv
    return not problem.bound.terms


def _lanes(dtype: torch.dtype) -> int:
    return 8 if dtype == torch.float64 else 16


@lru_cache(maxsize=128)
def _relation(bound: Bound, lanes_per_vector: int, both: bool) -> Any:
    """The plan as the C++ side holds it: for a forward pass, or for both."""
    work = plan(bound, lanes_per_vector)
    pad = AXES - bound.rank
    steps = _bias_steps(bound)
    relation = native.cpu.Relation([1] * pad + list(bound.grid), [1] * pad + list(bound.grid_kv), steps)
    one = np.ones(1, np.int32)
    for term in bound.terms:
        for axis in range(AXES):
            if axis < pad:
                relation.add_axis(axis, one - 1, one, 1, 1, False)
                continue
            table = term[axis - pad]
            span = np.maximum(table.stop - table.start, 0).astype(np.int32)
            start = (table.start % table.length).astype(np.int32)
            relation.add_axis(axis, start, span, table.step, table.length, table.step != work.classes[axis])
    sides = {False: work.forward, True: work.transposed} if both else {False: work.forward}
    for transposed, side in sides.items():
        relation.set_lanes(transposed, side.lanes, list(side.box))
        for axis in range(AXES):
            lanes = side.axes[axis]
            relation.set_axis(transposed, axis, lanes.order, lanes.begin, side.row_order[axis])
        for term_cover in side.cover:
            for cover in term_cover:
                relation.add_cover(transposed, cover.reshape(-1))
    return relation


def _bias_steps(bound: Bound) -> list[int]:
    try:
        steps = bias_steps(bound)
    except ValueError:
        steps = (1,) * bound.rank  # mixed dilations: a bias is refused before the kernel is called
    return [1] * (AXES - bound.rank) + list(steps)


def _call(
    problem: Problem,
    operands: Operands,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad_key_bias: torch.Tensor | None = None,
    *,
    both: bool = False,
) -> tuple[Any, list[torch.Tensor]]:
    """A call with everything but gradients set, and the tensors that must outlive it; ``both`` for a backward pass."""
    shape = [problem.batch, problem.heads, problem.kv_heads, problem.head_dim, problem.value_dim]
    lives = isinstance(problem.pattern, Expiry)
    if lives:
        relation = _bare(problem.grid[0], problem.grid_kv[0])
    else:
        relation = _relation(problem.bound, _lanes(problem.dtype), both)
    isa = os.environ.get("WINDEYE_ISA", "")
    call = native.cpu.Call(relation, native.TYPES[problem.dtype], shape, problem.scale, torch.get_num_threads(), isa)
    call.set_inputs(*(_strides(t) for t in (*operands[:3], out)), lse.data_ptr())
    alive: list[torch.Tensor] = []
    if operands.key_padding is not None:
        hidden = operands.key_padding.contiguous()
        alive.append(hidden)
        call.set_key_padding(hidden.data_ptr())
    if isinstance(problem.pattern, Expiry):
        alive += _set_lifetimes(call, problem, problem.pattern, operands.bias, grad_key_bias)
    elif operands.bias is not None:
        check_reach(problem.bound, operands.bias.shape[1:])
        table = operands.bias.detach().to(lse.dtype).contiguous()
        alive.append(table)
        call.set_bias(table.data_ptr(), [1] * (AXES - len(problem.grid)) + list(operands.bias.shape[1:]))
    if problem.dropout_p > 0.0:
        assert operands.seed is not None
        call.set_dropout(problem.dropout_p, threshold(problem.dropout_p), int(operands.seed.item()) & 0xFFFFFFFF)
    return call, alive


def _bare(queries: int, keys: int) -> Any:
    """A relation without tables, for its sizes only."""
    return native.cpu.Relation([1, 1, queries], [1, 1, keys], [1] * AXES)


def _set_lifetimes(
    call: Any, problem: Problem, pattern: Expiry, bias: torch.Tensor | None, grad_bias: torch.Tensor | None
) -> list[torch.Tensor]:
    planes = pattern.planes.contiguous()
    row = planes.new_empty(1, 1, dtype=problem.lse_dtype)
    if bias is not None:
        row = bias.detach().to(problem.lse_dtype).contiguous()
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (bias if bias is None else row, grad_bias)]
    call.set_lifetimes(planes.data_ptr(), planes.shape[0], planes.shape[1], addresses[0], row.shape[1], addresses[1])
    return [planes, row]


def _strides(tensor: torch.Tensor) -> list[int]:
    """Address and element strides as [batch, three axes, heads, dim]; missing leading axes have stride zero."""
    batch, *axes, heads, dim = tensor.stride()
    return [tensor.data_ptr(), batch, *([0] * (AXES - len(axes))), *axes, heads, dim]


if native.cpu is not None:
    operator.KERNELS[name] = sys.modules[__name__]
