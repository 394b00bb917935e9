"""What an experiment is given: budget, device, seeds, data, a recorder of finished parts, a way to report progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from windeye.report import BUDGETS, Budget, Evidence, Recorder
from windeye.train.threads import one_thread

__all__ = ["BUDGETS", "Budget", "Experiment", "Run", "one_thread"]


def _silent(_part: str, _done: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    ``smoke`` takes seconds and proves that the machinery works, never a claim; ``default`` takes minutes on two cores;
    ``full`` needs real data sets or a GPU. ``progress(part, share)`` is called as work goes on, share from 0 to 1.
    """

    budget: Budget
    seeds: tuple[int, ...]
    device: str = "cpu"
    data: Path | None = None
    recorder: Recorder = field(default_factory=lambda: Recorder(None, {}))
    progress: Callable[[str, float], None] = _silent
    command: str = ""


class Experiment(Protocol):
    """A module or package of this folder: ``SEEDS`` per budget, and ``experiment``."""

    SEEDS: dict[Budget, tuple[int, ...]]

    def experiment(self, run: Run) -> Evidence: ...
