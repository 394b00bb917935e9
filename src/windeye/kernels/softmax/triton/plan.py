"""How a bound pattern is cut for a GPU: boxes of queries and of keys, and which boxes meet, whole or in part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod

import numpy as np
import numpy.typing as npt

from windeye.patterns import AxisTable, Bound
from windeye.tiling import common_classes

AXES = 3
"""The kernels see three axes always; grids of lower rank get leading axes of length one."""
WRAPS, STEPS = 1, 2
"""What an axis of a term may ask of a mask beside its interval, as bits: intervals that go on from the axis' beginning,
and keys that lie steps apart."""
MOST_MEETINGS = 1 << 30
"""Pairs of boxes that a plan looks at."""

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AxisBoxes:
    """One axis cut into boxes: coordinates ``[boxes * size]``, -1 where a box at the rim has none. A box lies within
    one residue class, and all classes have as many boxes."""

    size: int
    coordinates: Ints

    @property
    def count(self) -> int:
        return len(self.coordinates) // self.size


@dataclass(frozen=True, eq=False)
class Meetings:
    """For each box of one side the boxes of the other that it meets: ``other[begin[b]:middle[b]]`` are full of tokens
    and see or are seen whole, ``other[middle[b]:begin[b + 1]]`` may not be."""

    begin: Ints
    middle: Ints
    other: Ints


@dataclass(frozen=True, eq=False)
class Intervals:
    """Interval tables, all terms and axes one after the other, by the coordinates of the one side: the first coordinate
    of the other side and how many positions follow; of one axis and term from ``place`` on."""

    start: Ints
    span: Ints
    place: Ints
    """[terms, axes, 3]: where a table begins in ``start``, the length of the other axis, and the step."""
    checks: tuple[int, ...]
    """Of each term and axis what a mask has to look at beside the interval: `WRAPS`, `STEPS`, both or neither."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything about a bound pattern that the kernels read."""

    rank: int
    queries: tuple[AxisBoxes, ...]
    keys: tuple[AxisBoxes, ...]
    of_queries: Meetings
    of_keys: Meetings
    relation: Intervals
    """The keys of each query."""
    inverse: Intervals
    """The queries of each key; made of more terms in some cases."""

    @property
    def visited(self) -> int:
        """Pairs of boxes that are computed."""
        return len(self.of_queries.other)


@lru_cache(maxsize=128)
def plan(bound: Bound, queries: int, keys: int, shape: int = 0) -> Plan:
    """The plan with boxes of so many queries and keys, powers of two, of the shapes that meet least, or next to least.

    Example:
        >>> from windeye.patterns import Causal
        >>> p = plan(Causal().bind((64,)), 16, 16)
        >>> p.of_queries.begin.tolist(), p.of_queries.middle.tolist()
        ([0, 1, 3, 6, 10], [0, 2, 5, 9])
    """
    terms, classes = _terms(bound), axis_classes(bound)
    shapes = _best_boxes(terms, classes, queries, keys)
    q_box, kv_box = shapes[min(shape, len(shapes) - 1)]
    q_axes = tuple(_cut(terms[0][a].queries, classes[a], q_box[a]) for a in range(AXES))
    kv_axes = tuple(_cut(terms[0][a].length, classes[a], kv_box[a]) for a in range(AXES))
    meetings = prod(axis.count for axis in q_axes) * prod(axis.count for axis in kv_axes)
    if meetings > MOST_MEETINGS:
        raise ValueError(f"{meetings:,} pairs of boxes are too many to plan; the grids are too large")
    met: Bools = np.zeros((1, 1), np.bool_)
    whole: Bools = np.zeros((1, 1), np.bool_)
    for term in terms:
        axes = [_meet(term[a], classes[a], q_axes[a], kv_axes[a]) for a in range(AXES)]
        met = np.logical_or(met, reduce(_product, [some for some, _ in axes]))
        whole = np.logical_or(whole, reduce(_product, [every for _, every in axes]))
    full = reduce(np.logical_and.outer, [(axis.coordinates.reshape(-1, axis.size) >= 0).all(axis=1) for axis in q_axes])
    back = whole & full.reshape(-1, 1)
    relation, inverse = _intervals(terms, classes), _intervals(_terms(bound.inverse()), classes)
    return Plan(bound.rank, q_axes, kv_axes, _listed(met, whole), _listed(met.T, back.T), relation, inverse)


def axis_classes(bound: Bound) -> tuple[int, ...]:
    """Residue classes of each of the three axes."""
    return tuple(common_classes([term[axis] for term in _terms(bound)]) for axis in range(AXES))


def _terms(bound: Bound) -> list[tuple[AxisTable, ...]]:
    point = AxisTable(np.zeros(1, np.int64), np.ones(1, np.int64), 1, 1)
    return [(point,) * (AXES - bound.rank) + term for term in bound.terms]


def _cut(length: int, classes: int, size: int) -> AxisBoxes:
    lanes = -(-length // (classes * size)) * size
    places = np.arange(classes)[:, None] + classes * np.arange(lanes)
    return AxisBoxes(size, np.where(places < length, places, -1).reshape(-1).astype(np.int32))


def _meet(table: AxisTable, classes: int, queries: AxisBoxes, keys: AxisBoxes) -> tuple[Bools, Bools]:
    """[query boxes, key boxes] of one axis: whether any query may see any key, and whether all see all."""
    lanes = queries.coordinates.reshape(-1, queries.size)
    there = lanes >= 0
    places = keys.coordinates.reshape(-1, keys.size)
    first, last, complete = places[:, 0], places.max(axis=1), (places >= 0).all(axis=1)
    shape = (len(lanes), len(places))
    alike = np.broadcast_to(np.equal(lanes[:, :1] % classes, first[None] % classes), shape)
    met, whole = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for piece in table.unwrapped():
        start, stop = piece.start[lanes], piece.stop[lanes]
        live = there & (stop > start)
        earliest = np.where(live, start, piece.length).min(axis=1)[:, None]
        latest = np.where(live, stop, 0).max(axis=1)[:, None]
        met |= (earliest <= last) & (latest > first) & alike
        if piece.step == classes:
            every = np.all(live | ~there, axis=1, keepdims=True)
            most = np.where(there, start, 0).max(axis=1)[:, None]
            least = np.where(there, stop, piece.length).min(axis=1)[:, None]
            whole |= (most <= first) & (least > last) & complete & every & alike
    return met, whole


def _product(a: Bools, b: Bools) -> Bools:
    """Meetings of boxes of two axes together, numbered row-major."""
    both = a[:, None, :, None] & b[None, :, None, :]
    return both.reshape(a.shape[0] * b.shape[0], a.shape[1] * b.shape[1])


def _listed(met: Bools, whole: Bools) -> Meetings:
    box, other = np.nonzero(met)
    every = whole[box, other]
    order = np.lexsort((other, ~every, box))
    counts = met.sum(axis=1)
    begin = np.concatenate([[0], np.cumsum(counts)])
    middle = begin[:-1] + (met & whole).sum(axis=1)
    return Meetings(begin.astype(np.int32), middle.astype(np.int32), other[order].astype(np.int32))


def _best_boxes(
    terms: list[tuple[AxisTable, ...]], classes: tuple[int, ...], queries: int, keys: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of boxes by what they meet over all terms, the least first."""
    q_shapes = list(_shapes(queries, [table.queries for table in terms[0]]))
    kv_shapes = list(_shapes(keys, [table.length for table in terms[0]]))
    sizes = [[{shape[axis] for shape in shapes} for shapes in (q_shapes, kv_shapes)] for axis in range(AXES)]
    counts: list[dict[tuple[int, int], npt.NDArray[np.float64]]] = []
    for axis in range(AXES):
        found = {}
        for q in sizes[axis][0]:
            boxes = _cut(terms[0][axis].queries, classes[axis], q)
            for kv in sizes[axis][1]:
                others = _cut(terms[0][axis].length, classes[axis], kv)
                met = [_meet(term[axis], classes[axis], boxes, others)[0].sum() for term in terms]
                found[q, kv] = np.array(met, np.float64)
        counts.append(found)

    def cost(q: tuple[int, ...], kv: tuple[int, ...]) -> float:
        return float(np.prod([counts[axis][q[axis], kv[axis]] for axis in range(AXES)], axis=0).sum())

    return sorted(((q, kv) for q in q_shapes for kv in kv_shapes), key=lambda boxes: cost(*boxes))


def _shapes(size: int, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All boxes of so many lanes whose sides are powers of two, long last sides first. Only along the longest axis may
    a box be more than its axis filled up to such a power: lanes beyond an axis are idle, and to look at small boxes
    along a long axis takes long.

    Example:
        >>> list(_shapes(4, (1, 2, 100))), list(_shapes(8, (1, 1, 3)))
        ([(1, 1, 4), (1, 2, 2)], [(1, 1, 8)])
    """
    longest = max(range(AXES), key=lambda axis: (lengths[axis], axis))  # masks look at the axes of the grid only
    most = [size if axis == longest else 1 << (length - 1).bit_length() for axis, length in enumerate(lengths)]
    powers = [1 << n for n in range(size.bit_length())]
    for first in powers:
        for second in powers:
            sides = first, second, size // (first * second)
            if first * second <= size and all(side <= limit for side, limit in zip(sides, most, strict=True)):
                yield sides


def _spans(table: AxisTable) -> npt.NDArray[np.int64]:
    """Positions from the first key of each query to its last, both included."""
    counts = table.counts()
    return np.where(counts > 0, (counts - 1) * table.step + 1, 0)


def _checks(table: AxisTable, classes: int) -> int:
    """Boxes that meet lie in one residue class, so that steps of that size need no look."""
    span = _spans(table)
    live = span > 0
    wraps = bool((live & ((table.start < 0) | (table.start + span > table.length))).any())
    alike = table.step == classes and not ((np.arange(table.queries) - table.start)[live] % table.step).any()
    return (WRAPS if wraps else 0) | (STEPS if table.step > 1 and (wraps or not alike) else 0)


def _intervals(terms: list[tuple[AxisTable, ...]], classes: tuple[int, ...]) -> Intervals:
    starts, spans, place, at = [], [], [], 0
    for term in terms:
        for table in term:
            starts.append(table.start % table.length)
            spans.append(_spans(table))
            place.append((at, table.length, table.step))
            at += table.queries
    shaped = np.array(place, np.int32).reshape(len(terms), AXES, 3)
    checks = tuple(_checks(table, classes[axis]) for term in terms for axis, table in enumerate(term))
    return Intervals(np.concatenate(starts).astype(np.int32), np.concatenate(spans).astype(np.int32), shaped, checks)
