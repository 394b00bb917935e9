"""The C++ kernel of the memory: forward, and the gradient through its gradients."""

from __future__ import annotations

import os
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windeye.kernels import native
from windeye.kernels.associative.network import Activation
from windeye.kernels.associative.problem import Options, Work

MOST_LAYERS = 8


def refusal(work: Work, options: Options) -> str | None:
    """Why the kernel cannot do a call; None if it can."""
    if native.cpu is None:
        return native.missing
    if work.query.device.type != "cpu":
        return f"tensors are on {work.query.device}, not on a CPU"
    if len(work.shapes) > MOST_LAYERS:
        return f"the memory has {len(work.shapes)} layers, more than {MOST_LAYERS}"
    for name, asked in (
        ("residual_gain", work.gain is not None),
        ("predict_decayed", options.predict_decayed),
        ("max_grad_norm", options.max_grad_norm is not None),
    ):
        if asked:
            return f"{name} is left to the torch form"
    return None


def attend(work: Work, options: Options) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs [pieces, rows, width, value_dim]; anchor, weights and momentum [rows, numbers] after the last piece."""
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _Memory.apply(  # type: ignore[no-untyped-call]
        work.query, work.key, work.value, work.keep, work.momentum, work.step_size, work.anchor, work.weights,
        work.surge, work, options,
    )  # fmt: skip
    return found


class _Memory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *tensors, work, options = arguments
        inputs = [tensor.contiguous() for tensor in tensors]
        # Through `addresses`, in the order that the module reads them.
        inputs[6:6] = [work.lengths.contiguous(), work.completes.to(torch.uint8).contiguous()]
        pieces, rows, width, _ = inputs[0].shape
        out = torch.empty(pieces, rows, width, work.shapes[-1][1], dtype=inputs[0].dtype)
        after = [torch.empty_like(inputs[8]) for _ in range(3)]
        saved = None
        if any(ctx.needs_input_grad):
            saved = out.new_empty(pieces, rows, 2, inputs[8].shape[-1])
        call = _call(inputs, work, options)
        call.set_outputs([*_addresses(out, *after), 0 if saved is None else saved.data_ptr()])
        call.forward()
        ctx.work, ctx.options = work, options
        ctx.save_for_backward(*inputs, saved)
        return (out, *after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, saved = ctx.saved_tensors
        given = [grad.contiguous() for grad in grads]
        call = _call(inputs, ctx.work, ctx.options)
        call.set_gradients(_addresses(saved, *given))
        found = [torch.empty_like(tensor) for tensor in (*inputs[:6], *inputs[8:])]
        call.set_results(_addresses(*found))
        call.backward()
        return (*found, None, None)


def _call(inputs: list[Tensor], work: Work, options: Options) -> Any:
    pieces, rows, width, _ = inputs[0].shape
    widths = [work.shapes[0][0], *(outer for _, outer in work.shapes)]
    call = native.cpu.AssociativeCall(
        inputs[0].dtype == torch.float64, get_args(Activation).index(options.activation), widths, [pieces, rows, width],
        options.factor, torch.get_num_threads(), os.environ.get("WINDEYE_ISA", ""),
    )  # fmt: skip
    call.set_inputs(_addresses(*inputs))
    return call


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
