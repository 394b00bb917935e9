"""What tables of comparisons are made of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Columns, and rows of text."""


def plus_minus(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """Mean and sample standard deviation.

    Example:
        >>> plus_minus([97.0, 99.0], "%")
        '98.0 ± 1.4 %'
    """
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}{' ' + unit if unit else ''}"


def told(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """The name, and how many of its trainings ended early because a number was no longer finite."""
    diverged = sum(run["diverged"] for run in runs)
    return f"{name} ({diverged} of {len(runs)} diverged)" if diverged else name


def mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    """The mean of one number of all runs."""
    return statistics.fmean(run[name] for run in runs)
