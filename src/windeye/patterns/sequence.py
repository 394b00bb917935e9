"""Patterns about order and membership: everything, the past, documents, always-visible tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from windeye.patterns.bound import Grid, Term
from windeye.patterns.pattern import Pattern, check_axes, is_int
from windeye.patterns.position import positions
from windeye.patterns.table import AxisTable, full_table
from windeye.patterns.windows import sequence_only


@dataclass(frozen=True, repr=False)
class Full(Pattern):
    """Every query sees every key.

    Example:
        >>> Full().bind((2, 3)).density()
        1.0
    """

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        return (tuple(full_table(q, k) for q, k in zip(grid, grid_kv, strict=True)),)


@dataclass(frozen=True, repr=False)
class Causal(Pattern):
    """A query sees itself and the keys before it; on a grid, before it in row-major order.

    Query and key grids of different lengths are aligned at the end, so that the last query sees everything; this is
    the convention of decoders with a cache. Differs from: torch's ``is_causal``, which aligns at the start.

    Example:
        >>> Causal().bind((3,)).mask().int().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        >>> Causal().bind((2, 2)).keys_of(2)
        [0, 1, 2]
    """

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        if len(grid) > 1 and grid[1:] != grid_kv[1:]:
            raise ValueError(f"Causal on grids needs equal axes after the first, got {grid} and {grid_kv}")
        # Row-major order: equal in the leading axes, strictly before in one, anything in the axes after it.
        terms = []
        for axis in range(len(grid)):
            tables = []
            for other, (queries, keys) in enumerate(zip(grid, grid_kv, strict=True)):
                where = positions(queries, keys, causal=True)
                if other < axis:
                    tables.append(_plain(where, where + 1, keys))
                elif other > axis:
                    tables.append(full_table(queries, keys))
                else:
                    tables.append(_plain(np.zeros_like(where), where + (axis == len(grid) - 1), keys))
            terms.append(tuple(tables))
        return tuple(terms)


@dataclass(frozen=True, repr=False)
class Documents(Pattern):
    """Packed sequences: tokens see each other only inside their own document; often ``Documents(...) & Causal()``.

    Args:
        lengths: tokens of each document, in order; their sum is the length of the sequence. Zero is allowed.

    Example:
        >>> Documents((2, 3)).bind((5,)).keys_of(3)
        [2, 3, 4]
    """

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.lengths, Iterable):
            raise TypeError(f"lengths must be a tuple of integers, one per document, got {self.lengths!r}")
        lengths = tuple(self.lengths)
        if not lengths:
            raise ValueError("lengths must name at least one document, got ()")
        object.__setattr__(self, "lengths", check_axes(lengths, "lengths", 0))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        sequence_only(self, grid)
        if grid != grid_kv:
            raise ValueError(f"Documents needs equal query and key lengths, got {grid[0]} and {grid_kv[0]}")
        total = sum(self.lengths)
        if total != grid[0]:
            raise ValueError(f"lengths sum to {total} but the sequence has {grid[0]} tokens")
        ends = np.cumsum(np.asarray(self.lengths, dtype=np.int64))
        own = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return ((AxisTable((ends - self.lengths)[own], ends[own], 1, total),),)


@dataclass(frozen=True, repr=False)
class Sinks(Pattern):
    """The first ``n`` tokens of a sequence stay visible, but never from the future: ``Sliding(256) | Sinks(4)``.

    Example:
        >>> from windeye.patterns import Sliding
        >>> (Sliding(2) | Sinks(1)).bind((6,)).keys_of(4)
        [0, 3, 4]
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _count(self.n))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        sequence_only(self, grid)
        where = positions(grid[0], grid_kv[0], causal=True)
        return ((_plain(np.zeros_like(where), np.minimum(where + 1, self.n), grid_kv[0]),),)


@dataclass(frozen=True, repr=False)
class Prefix(Pattern):
    """The first ``n`` tokens are visible to all, also to those before them: ``Causal() | Prefix(n)`` is a prefix LM.

    Example:
        >>> (Causal() | Prefix(2)).bind((4,)).keys_of(0)
        [0, 1]
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _count(self.n))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        sequence_only(self, grid)
        start = np.zeros(grid[0], dtype=np.int64)
        return ((_plain(start, np.full_like(start, self.n), grid_kv[0]),),)


def _plain(start: np.ndarray, stop: np.ndarray, keys: int) -> AxisTable:
    start, stop = np.clip(start, 0, keys), np.clip(stop, 0, keys)
    return AxisTable(start, np.maximum(start, stop), 1, keys)


def _count(n: object) -> int:
    if not is_int(n):
        raise TypeError(f"n must be an integer, got {n!r}")
    checked = check_axes(n, "n", 0)
    assert isinstance(checked, int)
    return checked
