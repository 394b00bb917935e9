"""Which backend runs: each one says why it can or cannot, and the first that can is taken."""

from __future__ import annotations

from typing import Protocol

import torch

from windeye.kernels.softmax import cpu, flex, gather, natten, reference, sdpa, triton
from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem


class Backend(Protocol):
    """A module of this folder. ``can_run`` gives None, or the reason why not; ``attend`` is differentiable."""

    name: str
    JOINS_EXTRA: bool
    """Whether ``attend`` takes extra keys into its softmax; others see them in a second branch."""

    def can_run(self, problem: Problem) -> str | None: ...

    def attend(self, problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]: ...


BACKENDS: dict[str, Backend] = {
    "cpu": cpu, "natten": natten, "sdpa": sdpa, "gather": gather, "flex": flex, "triton": triton,
    "reference": reference,
}  # fmt: skip

AUTO: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu", "sdpa", "gather", "reference"),
    "cuda": ("natten", "sdpa", "gather", "flex", "triton", "reference"),
}
"""What "auto" tries, in order, by device type. natten and flex serve GPUs until our own kernels are measured there. On
CPUs flex runs only by name: it compiles for seconds and is no faster than dense attention (docs/performance.md)."""

IN_GRAPHS: dict[str, tuple[str, ...]] = {
    **AUTO, "cuda": ("natten", "sdpa", "gather", "triton", "flex", "reference"),
}  # fmt: skip
"""The same while torch.compile traces: a graph would hold flex's block mask of one grid, our operator takes any."""


def refusals(problem: Problem) -> dict[str, str | None]:
    """For every backend, None when it can run this problem, else why it cannot."""
    return {name: backend.can_run(problem) for name, backend in BACKENDS.items()}


def choose(problem: Problem, name: str = "auto") -> Backend:
    """The backend to run: the named one, which must be able to, or the first that can.

    Raises:
        ValueError: the name is unknown, or the named backend cannot run this problem; gives its reason.
    """
    if name == "auto":
        order = IN_GRAPHS if torch.compiler.is_compiling() else AUTO
        for candidate in order.get(problem.device.type, ("reference",)):
            if BACKENDS[candidate].can_run(problem) is None:
                return BACKENDS[candidate]
    if name not in BACKENDS:
        raise ValueError(f'backend must be "auto" or one of {", ".join(BACKENDS)}, got {name!r}')
    reason = BACKENDS[name].can_run(problem)
    if reason is not None:
        raise ValueError(f'backend "{name}" cannot run this call: {reason}')
    return BACKENDS[name]
