"""The C++ kernel: the chunked form, forward and backward, in one walk over the chunks of each head.

It reads tensors in place through their strides and computes in float32 (float64 for float64). Inside a chunk a few
small matrix products run in registers; between chunks one state per head is carried. The backward pass computes states
again instead of storing them, so memory beyond inputs and outputs does not grow with the tokens.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import Any

import torch

from windeye.kernels import native
from windeye.kernels.recurrence import operator
from windeye.kernels.recurrence.problem import EPSILON, Problem, check_values

backend = "cpu"
form = "chunk"
CHUNK = 32
"""Small products are cheap here, so short chunks win: half of the work inside a chunk grows with its length."""


def can_run(problem: Problem) -> str | None:
    """Runs everything on the CPU, first derivatives only."""
    if problem.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {problem.device.type}"
    if native.cpu is None:
        return native.missing
    return None


def attend(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered operator; its numbers come from `forward` and `backward` below."""
    out, state, _ = operator.linear_attention(
        query, key, value, log_decay, initial_state, cu_seqlens, lengths, problem.feature_map, problem.normalize,
        problem.scale, problem.chunk_size, problem.needs_state, backend,
    )  # fmt: skip
    return out, state


def forward(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(out, final state, denominator)``."""
    check_values(problem.tokens, log_decay, cu_seqlens, lengths)
    out, state, denominator = operator.empty_outputs(problem, query)
    native.prefer_huge_pages(out)
    if lengths is not None:
        out.zero_()
        denominator.zero_()
    initial = None if initial_state is None else initial_state.contiguous()
    call, _alive = _call(problem, query, key, value, log_decay, cu_seqlens, lengths, out, denominator)
    call.set_states(_address(initial), _address(state) if problem.needs_state else 0)
    call.forward()
    return out, state, denominator


def backward(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
    out: torch.Tensor,
    state: torch.Tensor,
    denominator: torch.Tensor,
    grad_out: torch.Tensor,
    grad_state: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients, each with one writer: bit-equal on every run and with any number of threads."""
    wide = problem.state_dtype
    initial = None if initial_state is None else initial_state.contiguous()
    pull = None if grad_state is None else grad_state.to(wide).contiguous()
    grads = operator.empty_gradients(query, key, value)
    native.prefer_huge_pages(*grads)
    if lengths is not None:
        for grad in grads:
            grad.zero_()
    grad_initial = None if initial is None else torch.empty_like(initial)
    call, _alive = _call(problem, query, key, value, log_decay, cu_seqlens, lengths, out, denominator)
    call.set_states(_address(initial), 0)
    call.set_gradients(_strides(grad_out), *(_strides(grad) for grad in grads), _address(pull), _address(grad_initial))
    grad_decay = None
    if log_decay is not None:
        per_head = log_decay.dim() == 1
        grad_decay = torch.zeros(problem.state_shape[:2] if per_head else log_decay.shape, dtype=wide)
        if problem.needs_decay_grad:
            rows, columns = (torch.empty(query.shape[:3], dtype=wide) for _ in range(2))
            tail = None if pull is None else (state * pull).sum(dim=(-1, -2)).contiguous()
            call.set_decay_gradient(_address(rows), _address(columns), _address(grad_decay), _address(tail))
    call.backward()
    if log_decay is not None and grad_decay is not None:
        grads.append((grad_decay.sum(0) if log_decay.dim() == 1 else grad_decay).to(log_decay.dtype))
    if grad_initial is not None:
        grads.append(grad_initial)
    return grads


def _call(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
    out: torch.Tensor,
    denominator: torch.Tensor,
) -> tuple[Any, list[torch.Tensor]]:
    """A call with inputs set, and the tensors that must outlive it."""
    chunk = min(problem.chunk_size or CHUNK, max(problem.tokens, 1))
    shape = [problem.heads, problem.kv_heads, problem.head_dim, problem.value_dim, problem.tokens, chunk]
    call = native.cpu.RecurrenceCall(
        native.TYPES[problem.dtype], shape, _sequences(problem, cu_seqlens, lengths), problem.feature_map == "taylor2",
        problem.normalize, problem.scale, EPSILON, torch.get_num_threads(), os.environ.get("WINDEYE_ISA", ""),
    )  # fmt: skip
    call.set_inputs(_strides(query), _strides(key), _strides(value), _strides(out), _address(denominator))
    if log_decay is None:
        return call, []
    decay = log_decay.detach().to(problem.state_dtype).contiguous()
    call.set_decay(log_decay.dim() if log_decay.dim() == 1 else 2, _address(decay))
    return call, [decay]


def _sequences(problem: Problem, cu_seqlens: torch.Tensor | None, lengths: torch.Tensor | None) -> list[int]:
    """Batch entry, first token and end of every sequence, one after the other."""
    if cu_seqlens is not None:
        return [number for start, stop in pairwise(cu_seqlens.tolist()) for number in (0, start, stop)]
    stops = [problem.tokens] * problem.batch if lengths is None else lengths.tolist()
    return [number for batch, stop in enumerate(stops) for number in (batch, 0, stop)]


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _strides(tensor: torch.Tensor) -> list[int]:
    """Address and element strides of [batch, tokens, heads, dim]."""
    return [tensor.data_ptr(), *tensor.stride()]


if native.cpu is not None:
    operator.KERNELS[backend] = sys.modules[__name__]
