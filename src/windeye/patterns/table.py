"""Interval tables: for each position of one axis, which keys of that axis it may see.

This is the one truth of the library. Masks, pair counts, FLOPs, tile plans, pictures and kernels are all derived
from these arrays and never typed a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AxisTable:
    """Query ``i`` sees the keys ``start[i], start[i] + step, ...`` below ``stop[i]``, all taken modulo ``length``.

    ``start`` may be negative and ``stop`` may pass ``length``: the interval then wraps around the axis. It never
    spans more than ``length`` positions, so no key is counted twice. With ``stop <= start`` the query sees nothing.
    """

    start: Ints
    stop: Ints
    step: int
    length: int

    def __post_init__(self) -> None:
        span = self.stop - self.start
        if span.size and int(span.max()) > self.length:
            raise ValueError(f"an interval spans {int(span.max())} keys on an axis of {self.length}")

    @property
    def queries(self) -> int:
        return int(self.start.shape[0])

    @property
    def wraps(self) -> bool:
        live = self.stop > self.start
        return bool(np.any(live & ((self.start < 0) | (self.stop > self.length))))

    def counts(self) -> Ints:
        """Number of keys that each query sees."""
        return np.maximum(0, -((self.start - self.stop) // self.step))

    def allowed(self, query: Ints, key: Ints) -> Bools:
        """Whether ``query`` sees ``key``, elementwise with broadcasting."""
        return in_interval(key, self.start[query], self.stop[query], self.step, self.length)

    def mask(self) -> Bools:
        """The dense relation, bool [queries, length]."""
        return in_interval(
            np.arange(self.length)[None, :], self.start[:, None], self.stop[:, None], self.step, self.length
        )

    def intersect(self, other: AxisTable) -> list[AxisTable]:
        """Tables whose disjoint union is the intersection of both relations.

        One table is enough unless an interval wraps: a wrapped interval is two plain ones.
        """
        if (self.queries, self.length) != (other.queries, other.length):
            raise ValueError(
                f"cannot intersect tables of {self.queries}x{self.length} and {other.queries}x{other.length} positions"
            )
        return [_intersect_plain(a, b) for a in self.unwrapped() for b in other.unwrapped()]

    def unwrapped(self) -> list[AxisTable]:
        """The same relation as plain intervals within [0, length)."""
        if not self.wraps:
            return [self]
        pieces = []
        for turn in (-1, 0, 1):
            shift = turn * self.length
            start, stop = self.start + shift, self.stop + shift
            # The first member at or after 0 keeps the residue of the interval.
            below = np.maximum(0, -(start // self.step)) * self.step
            start = np.where(start < 0, start + below, start)
            stop = np.minimum(stop, self.length)
            if np.any(stop > start):
                pieces.append(AxisTable(start, np.maximum(stop, start), self.step, self.length))
        return pieces

    def inverse(self) -> AxisTable:
        """For each key, the interval of queries that see it.

        Exists where ``start`` and ``stop`` rise with the query inside each residue class and its queries are one step
        apart. That holds for every pattern between equal axes; see `inverses` for the others.

        Raises:
            ValueError: the reverse relation is not one table.
        """
        step, n = self.step, self.queries
        live = self.stop > self.start
        first = np.zeros(self.length, dtype=np.int64)
        last = np.zeros(self.length, dtype=np.int64)
        turns = (-1, 0, 1) if self.wraps else (0,)
        query_class = np.where(live, self.start % step, -1)
        for residue in range(step):
            members = np.flatnonzero(query_class == residue)
            keys = np.arange(residue, self.length, step)
            if members.size == 0:
                continue
            query = np.concatenate([members + turn * n for turn in turns])
            if np.any(np.diff(query) != step):
                raise ValueError("this relation has no inverse in one table: its queries are not evenly spaced")
            start = np.concatenate([self.start[members] + turn * self.length for turn in turns])
            stop = np.concatenate([self.stop[members] + turn * self.length for turn in turns])
            if np.any(np.diff(start) < 0) or np.any(np.diff(stop) < 0):
                raise ValueError("this relation has no inverse in one table: its windows do not move monotonically")
            lo = np.searchsorted(stop, keys, side="right")
            hi = np.searchsorted(start, keys, side="right")
            seen = hi > lo
            first[keys[seen]] = query[lo[seen]]
            last[keys[seen]] = query[hi[seen] - 1] + 1
        return AxisTable(first, last, step if np.any(last > first) else 1, n)

    def inverses(self) -> list[AxisTable]:
        """Tables whose disjoint union is the reverse relation.

        One table is enough unless axes of different lengths space the queries of a key unevenly: then there is one
        for each run of adjacent queries, found in the dense relation of this axis.
        """
        try:
            return [self.inverse()]
        except ValueError:
            return runs(self.mask().T)


def runs(mask: Bools) -> list[AxisTable]:
    """A dense relation as disjoint tables: table ``r`` holds the ``r``-th run of neighbours in each row."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    _, stop = np.nonzero(edges == -1)
    number = np.arange(row.size) - np.searchsorted(row, row)
    tables = []
    for run in range(int(number.max(initial=-1)) + 1):
        here = number == run
        bounds = np.zeros((2, mask.shape[0]), dtype=np.int64)
        bounds[:, row[here]] = start[here], stop[here]
        tables.append(AxisTable(bounds[0], bounds[1], 1, mask.shape[1]))
    return tables


def in_interval(key: Ints, start: Ints, stop: Ints, step: int, length: int) -> Bools:
    """Membership of ``key`` in the wrapped, stepped interval; the only place where this rule is written in numpy."""
    offset = (key - start) % max(length, 1)
    inside = offset < stop - start
    return inside if step == 1 else inside & (offset % step == 0)


def full_table(queries: int, length: int) -> AxisTable:
    """Every query sees every key."""
    return AxisTable(np.zeros(queries, np.int64), np.full(queries, length, np.int64), 1, length)


def _intersect_plain(a: AxisTable, b: AxisTable) -> AxisTable:
    start = np.maximum(a.start, b.start)
    stop = np.minimum(a.stop, b.stop)
    step = a.step * b.step // gcd(a.step, b.step)
    # The first position that belongs to both residue classes lies less than one common step away, or nowhere.
    first = np.full(start.shape, -1, dtype=np.int64)
    for ahead in range(step):
        candidate = start + ahead
        both = ((candidate - a.start) % a.step == 0) & ((candidate - b.start) % b.step == 0)
        first = np.where((first < 0) & both, candidate, first)
    empty = (first < 0) | (first >= stop)
    return AxisTable(np.where(empty, 0, first), np.where(empty, 0, stop), step, a.length)
