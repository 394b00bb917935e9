"""Triton kernels of the chunked form, forward and backward, for CUDA; Triton's interpreter runs them on a CPU.

The past enters a chunk as one state, so a call is two launches: a walk over the chunks of each sequence that writes the
state before each of them (`states`), then all outputs at once (`output`). The backward pass walks once more in each
direction and then makes all gradients at once (`gradients`). States are computed again, not kept between the passes.

Tiles are float32. Tensor cores multiply them in TF32 where the inputs are half types, which TF32 holds exactly, and as
three TF32 products, as exact as float32, where they are float32.

Triton is imported by the first call that runs here; nothing else needs it.
"""

from __future__ import annotations

import os
import sys
from importlib import util

import torch

from windeye.kernels.recurrence import operator
from windeye.kernels.recurrence.problem import Problem, check_values

backend = "triton"
form = "chunk"
CHUNK = 64
"""Tokens per chunk, and the most that a chunk may have."""
LARGEST_TAYLOR_DIM = 64
"""A program holds whole rows of coordinates to make features of them."""
_INSTALLED = util.find_spec("triton") is not None


def can_run(problem: Problem) -> str | None:
    """Runs on CUDA, first derivatives only; the reason names what it cannot do."""
    if problem.device.type != "cuda" and not (problem.device.type == "cpu" and _interpreted()):
        return (
            f"it runs on CUDA, the tensors are on {problem.device.type}; TRITON_INTERPRET=1 in the environment of the "
            "process tries it on a CPU, slowly"
        )
    if not _INSTALLED:
        return "the package triton is not installed"
    if problem.dtype == torch.float64:
        return "it has no float64"
    if problem.feature_map is not None and problem.head_dim > LARGEST_TAYLOR_DIM:
        return f"it makes Taylor features of up to {LARGEST_TAYLOR_DIM} coordinates, got head_dim {problem.head_dim}"
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
    from windeye.kernels.recurrence.triton import launch

    check_values(problem.tokens, log_decay, cu_seqlens, lengths)
    out, state, denominator = operator.empty_outputs(problem, query)
    if lengths is not None:
        out.zero_()
        denominator.zero_()
    call = launch.Call.of(problem, query, key, value, log_decay, cu_seqlens, lengths)
    launch.output(call, launch.states(call, initial_state, state), out, denominator)
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
    _state: torch.Tensor,
    denominator: torch.Tensor,
    grad_out: torch.Tensor,
    grad_state: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients, each with one writer."""
    from windeye.kernels.recurrence.triton import launch

    call = launch.Call.of(problem, query, key, value, log_decay, cu_seqlens, lengths)
    grad = launch.SumsGradient.of(problem, out, denominator, grad_out)
    grad_initial = (
        None if initial_state is None else torch.empty_like(initial_state, memory_format=torch.contiguous_format)
    )
    states = launch.states(call, initial_state)
    pulls = launch.pulls(call, grad, grad_state, grad_initial)
    grads = launch.gradients(call, grad, states, pulls)
    if grad_initial is not None:
        grads.append(grad_initial)
    return grads


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


operator.KERNELS[backend] = sys.modules[__name__]
