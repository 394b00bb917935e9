"""Which implementation runs: each is one form on one backend and says why it cannot; the first that can is taken."""

from __future__ import annotations

from typing import Protocol

import torch

from windeye.kernels.recurrence import chunked, cpu, recurrent, reference, triton
from windeye.kernels.recurrence.problem import Problem

FORMS = ("chunk", "parallel", "recurrent")


class Implementation(Protocol):
    """A module of this folder. ``can_run`` gives None, or the reason why not; ``attend`` is differentiable."""

    backend: str
    form: str

    def can_run(self, problem: Problem) -> str | None: ...

    def attend(
        self,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        log_decay: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        lengths: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


IMPLEMENTATIONS: tuple[Implementation, ...] = (cpu, triton, chunked, reference, recurrent)
"""In the order in which "auto" tries them."""

BACKENDS = tuple(dict.fromkeys(i.backend for i in IMPLEMENTATIONS))


def choose(problem: Problem, form: str = "auto", backend: str = "auto") -> Implementation:
    """The first implementation of that form on that backend which can run.

    Raises:
        ValueError: an unknown name, or nothing that fits can run this problem; gives the reasons.
    """
    if form != "auto" and form not in FORMS:
        raise ValueError(f'form must be "auto" or one of {", ".join(FORMS)}, got {form!r}')
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f'backend must be "auto" or one of {", ".join(BACKENDS)}, got {backend!r}')
    fitting = [i for i in IMPLEMENTATIONS if form in ("auto", i.form) and backend in ("auto", i.backend)]
    if not fitting:
        known = ", ".join(i.form for i in IMPLEMENTATIONS if i.backend == backend)
        raise ValueError(f'backend "{backend}" has no form "{form}"; it has {known}')
    reasons = []
    for implementation in fitting:
        reason = implementation.can_run(problem)
        if reason is None:
            return implementation
        reasons.append(f'backend "{implementation.backend}", form "{implementation.form}": {reason}')
    raise ValueError("this call cannot run: " + "; ".join(reasons))
