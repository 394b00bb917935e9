"""Native kernels as torch operators: autograd, fake tensors and a clear word about vmap, once for all of them.

A native kernel (C++ now, Triton later) has a forward and a backward that autograd cannot see into. Patterns cross the
operator boundary as their spec, which compiled graphs keep as a constant; patterns that depend on data bring their
tensors along as operands, so that new data is a new input and not a new graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch

from windeye.kernels.softmax.problem import Problem, lse_dtype, problem_of
from windeye.patterns import from_spec

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


class Kernel(Protocol):
    """What a native kernel implements."""

    def forward(
        self,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        key_padding: torch.Tensor | None,
        seed: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def backward(
        self,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        key_padding: torch.Tensor | None,
        seed: torch.Tensor | None,
        out: torch.Tensor,
        lse: torch.Tensor,
        grad_out: torch.Tensor,
        grad_lse: torch.Tensor,
    ) -> Gradients: ...


KERNELS: dict[str, Kernel] = {}
"""Native kernels by name; each adds itself when its module is imported."""


def _problem(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    key_padding: torch.Tensor | None,
    pattern: str,
    tables: Sequence[torch.Tensor],
    scale: float,
    dropout_p: float,
) -> Problem:
    return problem_of(
        from_spec(pattern, tables),
        query,
        key,
        value,
        scale=scale,
        dropout_p=dropout_p,
        has_bias=bias is not None,
        has_key_padding=key_padding is not None,
    )


def attend_by(
    kernel: str,
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    key_padding: torch.Tensor | None,
    seed: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator, on the kernel of this name."""
    pattern = problem.pattern
    return attend(
        query, key, value, bias, key_padding, seed, pattern.spec, list(pattern.tables), problem.scale,
        problem.dropout_p, kernel,
    )  # fmt: skip


@torch.library.custom_op("windeye::attend", mutates_args=())
def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    key_padding: torch.Tensor | None,
    seed: torch.Tensor | None,
    pattern: str,
    tables: Sequence[torch.Tensor],
    scale: float,
    dropout_p: float,
    kernel: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, lse)`` of one problem on a native kernel."""
    problem = _problem(query, key, value, bias, key_padding, pattern, tables, scale, dropout_p)
    return KERNELS[kernel].forward(problem, query, key, value, bias, key_padding, seed)


@attend.register_fake
def _(
    query: torch.Tensor,
    _key: torch.Tensor,
    value: torch.Tensor,
    *_options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return out, query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype))


@torch.library.custom_op("windeye::attend_backward", mutates_args=())
def attend_backward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    key_padding: torch.Tensor | None,
    seed: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor,
    pattern: str,
    tables: Sequence[torch.Tensor],
    scale: float,
    dropout_p: float,
    kernel: str,
) -> list[torch.Tensor]:
    """Gradients of query, key, value and, when there is one, of the bias."""
    problem = _problem(query, key, value, bias, key_padding, pattern, tables, scale, dropout_p)
    grads = KERNELS[kernel].backward(problem, query, key, value, bias, key_padding, seed, out, lse, grad_out, grad_lse)
    return [grad for grad in grads if grad is not None]


@attend_backward.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    *_rest: Any,
) -> list[torch.Tensor]:
    inputs = (query, key, value) if bias is None else (query, key, value, bias)
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, bias, key_padding, seed, pattern, tables, scale, dropout_p, kernel = inputs
    ctx.save_for_backward(query, key, value, bias, key_padding, seed, *output, *tables)
    ctx.options = (scale, dropout_p, kernel)
    ctx.pattern = pattern


def _backward(ctx: Any, grad_out: torch.Tensor | None, grad_lse: torch.Tensor | None) -> tuple[Any, ...]:
    query, key, value, bias, key_padding, seed, out, lse, *tables = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grad_lse = torch.zeros_like(lse) if grad_lse is None else grad_lse
    grads = attend_backward(
        query, key, value, bias, key_padding, seed, out, lse, grad_out, grad_lse, ctx.pattern, tables, *ctx.options
    )
    dbias = grads[3] if bias is not None else None
    return grads[0], grads[1], grads[2], dbias, None, None, None, [None] * len(tables), None, None, None


def _no_double_backward(_ctx: Any, *_grads: Any) -> NoReturn:
    raise RuntimeError('windeye: second derivatives need backend="reference" (dense, quadratic memory)')


def _no_vmap(_info: Any, _in_dims: Any, *_args: Any) -> NoReturn:
    raise RuntimeError("windeye: vmap over attend is not supported; put the mapped axis into the batch axis instead")


attend.register_autograd(_backward, setup_context=_setup)
attend_backward.register_autograd(_no_double_backward)
attend.register_vmap(_no_vmap)
attend_backward.register_vmap(_no_vmap)
