"""NATTEN's CUDA kernels behind our interface, where the package is installed."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module, util
from typing import Any

import torch

from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem
from windeye.patterns import Neighborhood

name = "natten"
JOINS_EXTRA = False


def can_run(problem: Problem) -> str | None:
    """Runs clamped neighbourhoods on CUDA; the reason names what it cannot do."""
    if problem.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {problem.device.type}"
    if not _installed():
        return "the package natten is not installed"
    pattern = problem.pattern
    if not isinstance(pattern, Neighborhood) or pattern.boundary != "clamp":
        return f'it knows Neighborhood with boundary "clamp" only, got {pattern.spec}'
    if problem.grid != problem.grid_kv:
        return f"it needs equal query and key grids, got {problem.grid} and {problem.grid_kv}"
    if len(problem.grid) > 3:
        return f"it knows grids of up to 3 axes, got {len(problem.grid)}"
    if min(_window(problem)) < 2:
        return "it refuses a kernel_size of 1"
    if problem.dtype == torch.float64:
        return "it has no float64"
    if problem.has_bias or problem.has_key_padding or problem.dropout_p > 0.0:
        return "it has neither bias tables, key padding nor dropout"
    if problem.head_dim % 8 or problem.value_dim % 8:
        return f"it needs head dims that are multiples of 8, got {problem.head_dim} and {problem.value_dim}"
    if 0 in (problem.batch, problem.heads, *problem.grid):
        return "it refuses empty tensors"
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``na1d``, ``na2d`` or ``na3d`` with the log-sum-exp."""
    pattern = problem.pattern
    assert isinstance(pattern, Neighborhood)
    run = getattr(import_module("natten.functional"), f"na{len(problem.grid)}d")
    out, lse = run(
        operands.query,
        operands.key,
        operands.value,
        kernel_size=_window(problem),
        stride=pattern.stride,
        dilation=pattern.dilation,
        is_causal=pattern.is_causal,
        scale=problem.scale,
        return_lse=True,
    )
    return out, lse


def _window(problem: Problem) -> tuple[int, ...]:
    """The window in keys, as NATTEN has no -1 for a whole axis."""
    pattern: Any = problem.pattern
    rank = len(problem.grid)
    size = pattern.kernel_size if isinstance(pattern.kernel_size, tuple) else (pattern.kernel_size,) * rank
    step = pattern.dilation if isinstance(pattern.dilation, tuple) else (pattern.dilation,) * rank
    return tuple(n // d if w == -1 else w for w, d, n in zip(size, step, problem.grid, strict=True))


@lru_cache(maxsize=1)
def _installed() -> bool:
    return util.find_spec("natten") is not None
