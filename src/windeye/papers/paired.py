"""Arms that are paired by their seeds: by how much is one ahead of another?

Differences and means are rounded to nine places, so that a margin that is met exactly is met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windeye.report import Row


def values(rows: Sequence[Row], arm: str, metric: str) -> tuple[float, ...]:
    """One number per seed.

    Raises:
        KeyError: there is no such row.
    """
    return {(row.arm, row.metric): row.values for row in rows}[arm, metric]


def ahead(rows: Sequence[Row], first: str, second: str, metric: str, *, scale: float = 1.0) -> tuple[float, ...]:
    """By how much one arm is above another, seed by seed; ``scale=100`` makes points of shares.

    Raises:
        KeyError: there is no row of one of them.

    Example:
        >>> rows = (Row("a", "accuracy", (0.3, 0.5)), Row("b", "accuracy", (0.2, 0.6)))
        >>> ahead(rows, "a", "b", "accuracy", scale=100)
        (10.0, -10.0)
    """
    pairs = zip(values(rows, first, metric), values(rows, second, metric), strict=True)
    return tuple(round(scale * (a - b), 9) for a, b in pairs)


def mean(numbers: Sequence[float]) -> float:
    """The mean, rounded."""
    return round(math.fsum(numbers) / len(numbers), 9)


def told(numbers: Sequence[float]) -> str:
    """Differences as a gate tells them.

    Example:
        >>> told((0.25, -3.0))
        '+0.2, -3.0'
    """
    return ", ".join(f"{number:+.1f}" for number in numbers)
