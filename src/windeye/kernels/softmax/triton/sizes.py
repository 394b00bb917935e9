"""Sizes of boxes and layouts of programs: what is taken unmeasured, and the few that are worth a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from windeye.kernels.softmax.problem import Problem
from windeye.kernels.softmax.triton.plan import plan

Kernel = Literal["attention", "grad_query", "grad_key_value", "grad_bias"]

MOST_CANDIDATES = 6
MOST_WASTE = 1.5
"""Pairs that a candidate may visit, over those of the one that visits least."""


@dataclass(frozen=True)
class Sizes:
    """Queries and keys per box, how a program is laid out, and which of the shapes of such boxes, by what they meet."""

    queries: int
    keys: int
    warps: int
    stages: int
    shape: int = 0


def first(problem: Problem, kernel: Kernel) -> Sizes:
    """What is taken unmeasured."""
    return _layouts(problem, kernel)[0]


def candidates(problem: Problem, kernel: Kernel) -> list[Sizes]:
    """The few that visit least, the one that is taken unmeasured first.

    Example:
        >>> import torch
        >>> from windeye.kernels.softmax.problem import problem_of
        >>> from windeye.patterns import Neighborhood
        >>> q = torch.zeros(1, 64, 64, 2, 64, dtype=torch.bfloat16, device="meta")
        >>> found = candidates(problem_of(Neighborhood(13), q, q, q, scale=1.0), "attention")
        >>> found[0].shape, len(set(found)) == len(found) <= MOST_CANDIDATES
        (0, True)
    """
    layouts = _layouts(problem, kernel)
    options = [replace(layout, shape=shape) for shape in range(2) for layout in layouts]
    visited = {option: _visited(problem, option) for option in options}
    least = min(visited.values())
    worth = [option for option in options[1:] if visited[option] <= MOST_WASTE * least]
    return [options[0], *sorted(worth, key=lambda option: visited[option])[: MOST_CANDIDATES - 1]]


def _visited(problem: Problem, chosen: Sizes) -> int:
    return plan(problem.bound, chosen.queries, chosen.keys, chosen.shape).visited * chosen.queries * chosen.keys


def _layouts(problem: Problem, kernel: Kernel) -> tuple[Sizes, ...]:
    """Those that fit registers and shared memory; wide heads and float32 take smaller boxes."""
    wide = max(problem.head_dim, problem.value_dim) * (2 if problem.dtype == torch.float32 else 1)
    if kernel == "attention":
        if wide <= 128:
            return Sizes(128, 64, 8, 3), Sizes(64, 64, 4, 3), Sizes(128, 64, 4, 3), Sizes(128, 128, 8, 2)
        return Sizes(64, 32, 4, 2), Sizes(128, 32, 8, 2), Sizes(64, 64, 8, 2)
    if wide <= 128:
        return Sizes(64, 64, 4, 2), Sizes(64, 64, 8, 2), Sizes(64, 32, 4, 2), Sizes(32, 64, 4, 2)
    return Sizes(32, 32, 4, 1), Sizes(32, 32, 4, 2), Sizes(64, 32, 8, 1)
