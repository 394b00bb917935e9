"""Triton kernels for every pattern of interval tables, forward and backward, for CUDA; Triton's interpreter runs them
on a CPU.

A program takes a box of queries and visits the boxes of keys that any of them may see: those that all of them see whole
without mask arithmetic, the others with masks from the tables of each axis. Tokens are fetched into boxes through their
strides, so that no tensor is permuted; boxes are chosen by what the whole grid costs. Dilated axes are cut into residue
classes, each boxed on its own. Every gradient has one writer: the same bits on every run.

Triton is imported by the first call that runs here; nothing else needs it.
"""

from __future__ import annotations

import os
import sys
from importlib import util

import torch

from windeye.kernels.softmax import operator
from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem

name = "triton"
JOINS_EXTRA = False
AXES = 3
LARGEST_DIM = 256
_INSTALLED = util.find_spec("triton") is not None


def can_run(problem: Problem) -> str | None:
    """Runs interval tables on CUDA; the reason names what it cannot do."""
    if problem.device.type != "cuda" and not (problem.device.type == "cpu" and _interpreted()):
        return (
            f"it runs on CUDA, the tensors are on {problem.device.type}; TRITON_INTERPRET=1 in the environment of the "
            "process tries it on a CPU, slowly"
        )
    if not _INSTALLED:
        return "the package triton is not installed"
    if len(problem.grid) > AXES:
        return f"it knows grids of up to {AXES} axes, got {len(problem.grid)}"
    if problem.pattern.tables:
        return "what a query sees depends on data"
    if problem.dtype == torch.float64:
        return "it has no float64"
    if problem.has_bias and "wrap" in problem.pattern.spec:
        return 'a bias table with boundary "wrap" has no single offset per pair; use backend="reference"'
    if max(problem.head_dim, problem.value_dim) > LARGEST_DIM:
        return f"it holds up to {LARGEST_DIM} coordinates, got {problem.head_dim} and {problem.value_dim}"
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered operator; its numbers come from `forward` and `backward` below."""
    return operator.attend_by(name, problem, operands)


def forward(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, lse)``."""
    query = operands.query
    out = query.new_empty((*query.shape[:-1], problem.value_dim))
    lse = query.new_empty(query.shape[:-1], dtype=problem.lse_dtype)
    if out.numel() == 0 or not problem.bound.terms:
        return out.zero_(), lse.fill_(-torch.inf)
    from windeye.kernels.softmax.triton import launch

    launch.forward(launch.Call.of(problem, operands), out, lse)
    return out, lse


def backward(
    problem: Problem,
    operands: Operands,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor,
) -> Gradients:
    """Gradients of query, key, value and bias."""
    bias = operands.bias
    grads = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in operands[:3]]
    if 0 in (grads[0].numel(), grads[1].numel()) or not problem.bound.terms:
        grad_bias = None if bias is None else torch.zeros_like(bias)
        return Gradients(grads[0].zero_(), grads[1].zero_(), grads[2].zero_(), grad_bias)
    from windeye.kernels.softmax.triton import launch

    call = launch.Call.of(problem, operands)
    pulls = launch.pulls(out, lse, grad_out, grad_lse)
    launch.backward(call, pulls, *grads)
    if bias is None:
        return Gradients(*grads)
    grad_bias = launch.gradient_of_bias(call, pulls, tuple(bias.shape[1:]))
    return Gradients(grads[0], grads[1], grads[2], grad_bias.to(bias.dtype))


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


operator.KERNELS[name] = sys.modules[__name__]
