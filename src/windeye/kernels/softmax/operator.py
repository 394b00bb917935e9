"""Native kernels as torch operators: autograd, fake tensors and a clear word about vmap, once for all of them.

A native kernel (C++ now, Triton later) has a forward and a backward that autograd cannot see into. Patterns cross the
operator boundary as their spec, which compiled graphs keep as a constant; patterns that depend on data bring their
tensors along as operands, so that new data is a new input and not a new graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch

from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem, lse_dtype, problem_of
from windeye.patterns import from_spec


class Kernel(Protocol):
    """What a native kernel implements."""

    def forward(self, problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]: ...

    def backward(
        self,
        problem: Problem,
        operands: Operands,
        out: torch.Tensor,
        lse: torch.Tensor,
        grad_out: torch.Tensor,
        grad_lse: torch.Tensor,
    ) -> Gradients: ...


KERNELS: dict[str, Kernel] = {}
"""Native kernels by name; each adds itself when its module is imported."""


def _problem(
    operands: Operands, pattern: str, tables: Sequence[torch.Tensor], scale: float, dropout_p: float
) -> Problem:
    return problem_of(
        from_spec(pattern, tables), operands.query, operands.key, operands.value, scale=scale, dropout_p=dropout_p,
        has_bias=operands.bias is not None, has_key_padding=operands.key_padding is not None,
    )  # fmt: skip


def attend_by(kernel: str, problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator, on the kernel of this name."""
    pattern = problem.pattern
    return attend(*operands, pattern.spec, list(pattern.tables), problem.scale, problem.dropout_p, kernel)


@torch.library.custom_op("windeye::attend", mutates_args=())
def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    key_padding: torch.Tensor | None,
    seed: torch.Tensor | None,
    extra_key: torch.Tensor | None,
    extra_value: torch.Tensor | None,
    extra_seed: torch.Tensor | None,
    pattern: str,
    tables: Sequence[torch.Tensor],
    scale: float,
    dropout_p: float,
    kernel: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, lse)`` of one problem on a native kernel."""
    operands = Operands(query, key, value, bias, key_padding, seed, extra_key, extra_value, extra_seed)
    return KERNELS[kernel].forward(_problem(operands, pattern, tables, scale, dropout_p), operands)


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
    extra_key: torch.Tensor | None,
    extra_value: torch.Tensor | None,
    extra_seed: torch.Tensor | None,
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
    """`Gradients` without those that are None."""
    operands = Operands(query, key, value, bias, key_padding, seed, extra_key, extra_value, extra_seed)
    problem = _problem(operands, pattern, tables, scale, dropout_p)
    grads = KERNELS[kernel].backward(problem, operands, out, lse, grad_out, grad_lse)
    return [grad for grad in grads if grad is not None]


@attend_backward.register_fake
def _(*inputs: Any) -> list[torch.Tensor]:
    operands = _first(inputs)
    likes = (getattr(operands, field) for field in _differentiated(operands))
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in likes]


def _first(values: Sequence[Any]) -> Operands:
    """The operands, with which inputs and saved tensors begin."""
    return Operands(*values[: len(Operands._fields)])


def _differentiated(operands: Operands) -> list[str]:
    """The operands of which `attend_backward` gives gradients, in its order."""
    return [field for field in Gradients._fields if getattr(operands, field) is not None]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    operands = _first(inputs)
    pattern, tables, *options = inputs[len(operands) :]
    ctx.save_for_backward(*operands, *output, *tables)
    ctx.pattern, ctx.options = pattern, options


def _backward(ctx: Any, grad_out: torch.Tensor | None, grad_lse: torch.Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # read once: under checkpointing they are gone after that
    operands = _first(saved)
    out, lse, *tables = saved[len(operands) :]
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grad_lse = torch.zeros_like(lse) if grad_lse is None else grad_lse
    found = attend_backward(*operands, out, lse, grad_out, grad_lse, ctx.pattern, tables, *ctx.options)
    grads = dict(zip(_differentiated(operands), found, strict=True))
    return *(grads.get(field) for field in Operands._fields), None, [None] * len(tables), *[None] * len(ctx.options)


def _no_double_backward(_ctx: Any, *_grads: Any) -> NoReturn:
    raise RuntimeError('windeye: second derivatives need backend="reference" (dense, quadratic memory)')


def _no_vmap(_info: Any, _in_dims: Any, *_args: Any) -> NoReturn:
    raise RuntimeError("windeye: vmap over attend is not supported; put the mapped axis into the batch axis instead")


attend.register_autograd(_backward, setup_context=_setup)
attend_backward.register_autograd(_no_double_backward)
attend.register_vmap(_no_vmap)
attend_backward.register_vmap(_no_vmap)
