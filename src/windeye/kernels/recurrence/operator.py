"""Native recurrences as torch operators: autograd, fake tensors and a clear word about vmap, once for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn, Protocol

import torch

from windeye.kernels.recurrence.problem import Problem, problem_of


class Kernel(Protocol):
    """What a native kernel implements."""

    def forward(
        self,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        log_decay: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        lengths: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def backward(
        self,
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
    ) -> list[torch.Tensor]: ...


KERNELS: dict[str, Kernel] = {}
"""Native kernels by name; each adds itself when its module is imported."""


def _problem(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    feature_map: str | None,
    normalize: bool,
    scale: float,
    chunk_size: int | None,
    needs_state: bool,
) -> Problem:
    return problem_of(
        query, key, value, cu_seqlens, feature_map=feature_map, normalize=normalize, scale=scale, chunk_size=chunk_size,
        needs_state=needs_state,
    )  # fmt: skip


@torch.library.custom_op("windeye::linear_attention", mutates_args=())
def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
    feature_map: str | None,
    normalize: bool,
    scale: float,
    chunk_size: int | None,
    needs_state: bool,
    kernel: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(out, final state, denominator)``; the last two are empty where they are not needed."""
    problem = _problem(query, key, value, cu_seqlens, feature_map, normalize, scale, chunk_size, needs_state)
    return KERNELS[kernel].forward(problem, query, key, value, log_decay, initial_state, cu_seqlens, lengths)


@linear_attention.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _log_decay: torch.Tensor | None,
    _initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    _lengths: torch.Tensor | None,
    feature_map: str | None,
    normalize: bool,
    scale: float,
    chunk_size: int | None,
    needs_state: bool,
    _kernel: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    problem = _problem(query, key, value, cu_seqlens, feature_map, normalize, scale, chunk_size, needs_state)
    return empty_outputs(problem, query)


def empty_outputs(problem: Problem, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """New tensors for ``(out, final state, denominator)``."""
    rows = query.shape[:3]
    wide = problem.state_dtype
    out = query.new_empty((*rows, problem.value_dim))
    state = query.new_empty(problem.state_shape if problem.needs_state else (0,), dtype=wide)
    return out, state, query.new_empty(rows if problem.normalize else (0,), dtype=wide)


@torch.library.custom_op("windeye::linear_attention_backward", mutates_args=())
def linear_attention_backward(
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
    needs_decay_grad: bool,
    feature_map: str | None,
    normalize: bool,
    scale: float,
    chunk_size: int | None,
    needs_state: bool,
    kernel: str,
) -> list[torch.Tensor]:
    """Gradients of query, key, value and, where there are such inputs, of the log-decay and the initial state."""
    problem = replace(
        _problem(query, key, value, cu_seqlens, feature_map, normalize, scale, chunk_size, needs_state),
        needs_decay_grad=needs_decay_grad,
    )
    return KERNELS[kernel].backward(
        problem, query, key, value, log_decay, initial_state, cu_seqlens, lengths, out, state, denominator, grad_out,
        grad_state,
    )  # fmt: skip


@linear_attention_backward.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    *_rest: Any,
) -> list[torch.Tensor]:
    return empty_gradients(query, key, value, log_decay, initial_state)


def empty_gradients(*inputs: torch.Tensor | None) -> list[torch.Tensor]:
    """New dense tensors like the inputs that there are."""
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs if t is not None]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.options = inputs[7:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])


def _backward(
    ctx: Any, grad_out: torch.Tensor | None, grad_state: torch.Tensor | None, _grad_denominator: torch.Tensor | None
) -> tuple[Any, ...]:
    *inputs, out, state, denominator = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    needs_state = ctx.options[4]
    grads = linear_attention_backward(
        *inputs, out, state, denominator, grad_out, grad_state if needs_state else None, ctx.needs_input_grad[3],
        *ctx.options,
    )  # fmt: skip
    rest = iter(grads)
    found = [None if t is None else next(rest) for t in inputs[:5]]
    return (*found, *[None] * 8)


def _no_double_backward(_ctx: Any, *_grads: Any) -> NoReturn:
    raise RuntimeError('windeye: second derivatives need backend="torch"')


def _no_vmap(_info: Any, _in_dims: Any, *_args: Any) -> NoReturn:
    raise RuntimeError(
        "windeye: vmap over linear_attention is not supported; put the mapped axis into the batch axis instead"
    )


linear_attention.register_autograd(_backward, setup_context=_setup)
linear_attention_backward.register_autograd(_no_double_backward)
linear_attention.register_vmap(_no_vmap)
linear_attention_backward.register_vmap(_no_vmap)
