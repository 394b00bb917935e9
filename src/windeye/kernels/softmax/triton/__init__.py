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
from dataclasses import replace
from importlib import util

import torch

from windeye.kernels.softmax import operator
from windeye.kernels.softmax.operands import Gradients, Operands
from windeye.kernels.softmax.problem import Problem
from windeye.patterns import Full

name = "triton"
JOINS_EXTRA = True
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
    if out.numel() > 0 and not problem.bound.terms and operands.extra_key is not None:
        flat = forward(*_extra_alone(problem, operands))
        return flat[0].view(out.shape), flat[1].view(lse.shape)
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
    """Of every operand that has one."""
    optional = (operands.bias, operands.extra_key, operands.extra_value)
    grads = Gradients(*map(_room, operands[:3]), *(None if t is None else _room(t) for t in optional))
    if problem.bound.terms and 0 not in (grads.query.numel(), grads.key.numel()):
        from windeye.kernels.softmax.triton import launch

        launch.backward(launch.Call.of(problem, operands), launch.pulls(out, lse, grad_out, grad_lse), grads)
        return grads
    for grad in grads:
        if grad is not None:
            grad.zero_()
    if operands.extra_key is None or grads.query.numel() == 0:
        return grads
    alone, flat = _extra_alone(problem, operands)
    results = (t.flatten(1, len(problem.grid)) for t in (out, lse, grad_out, grad_lse))
    found = backward(alone, flat, *results)
    return grads._replace(query=found.query.view(grads.query.shape), extra_key=found.key, extra_value=found.value)


def _room(tensor: torch.Tensor) -> torch.Tensor:
    """Dense, whatever the strides."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _extra_alone(problem: Problem, operands: Operands) -> tuple[Problem, Operands]:
    """The call that is left of one whose pattern shows nothing."""
    assert operands.extra_key is not None
    assert operands.extra_value is not None
    query = operands.query.flatten(1, -3)
    left = replace(
        problem, pattern=Full(), grid=(query.shape[1],), grid_kv=(operands.extra_key.shape[1],), has_bias=False,
        has_key_padding=False,
    )  # fmt: skip
    return left, Operands(query, operands.extra_key, operands.extra_value, seed=operands.extra_seed)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


operator.KERNELS[name] = sys.modules[__name__]
