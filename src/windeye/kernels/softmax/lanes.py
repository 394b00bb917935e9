"""How the C++ kernel cuts a bound pattern into work: lane tiles of queries, and the rows of keys each tile may see.

A vector holds a box of up to 16 queries (8 in float64), one per lane; a lane tile is a box of one, two or four such
vectors. A tile brings the rows that its lanes see, once; a vector works on those of them that its own lanes see. So the
boxes of vectors decide how many pairs are computed, and the tiles how often rows are brought. The plan picks what makes
the whole grid cheapest; windows that a stride group shares cost nothing extra when the boxes fit the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product
from math import prod

import numpy as np
import numpy.typing as npt

from windeye.patterns import AxisTable, Bound
from windeye.tiling import common_classes

AXES = 3
"""The kernel sees three axes always; grids of lower rank get leading axes of length one."""

ROW_OVERHEAD = 0.35
"""Cost of bringing one row to a tile (masks, pointers, loads), in units of one vector of lanes working on it."""

VECTORS = (1, 2, 4)
"""Vectors that a lane tile may hold; four of 16 lanes fill the 64 bits of a mask."""

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class AxisLanes:
    """One axis cut into tiles: ``order[begin[t]:begin[t + 1]]`` are the lanes of tile ``t``."""

    order: Ints
    begin: Ints


@dataclass(frozen=True, eq=False)
class SidePlan:
    """One direction: lanes per axis, the order of rows per axis, and per term and axis the rows of each tile."""

    lanes: int
    """Of a whole tile."""
    box: tuple[int, ...]
    """Lanes of one vector per axis."""
    axes: tuple[AxisLanes, ...]
    row_order: tuple[Ints, ...]
    cover: tuple[tuple[Ints, ...], ...]
    visited_pairs: int
    """Pairs computed, all terms counted: lanes that idle in incomplete vectors cost as much as the others."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Both directions: queries in the lanes for outputs and query gradients, keys in the lanes for theirs."""

    forward: SidePlan
    classes: tuple[int, ...]
    """Residue classes per axis in which lanes and rows stay together; 1 where terms disagree on the dilation."""
    plan_transposed: Callable[[], SidePlan]

    @cached_property
    def transposed(self) -> SidePlan:
        """Planned when a backward pass asks for it: of a new length at each decoded token it would be ten times what
        the token itself takes."""
        return self.plan_transposed()


@lru_cache(maxsize=128)
def plan(bound: Bound, lanes_per_vector: int) -> Plan:
    """The plan of a bound pattern, cached: bound patterns are themselves cached per pattern and grid."""
    pad = AXES - bound.rank
    point = AxisTable(np.zeros(1, np.int64), np.ones(1, np.int64), 1, 1)
    terms = tuple((point,) * pad + term for term in bound.terms)
    grid, grid_kv = (1,) * pad + bound.grid, (1,) * pad + bound.grid_kv
    classes = tuple(common_classes([term[axis] for term in terms]) for axis in range(AXES))

    def transposed() -> SidePlan:
        back = tuple(tuple(_inverse(table) for table in term) for term in terms)
        return _side(grid_kv, grid, back, classes, lanes_per_vector)

    return Plan(_side(grid, grid_kv, terms, classes, lanes_per_vector), classes, transposed)


def _inverse(table: AxisTable) -> AxisTable | None:
    try:
        return table.inverse()
    except ValueError:
        return None  # no interval form: every row is looked at, and the masks decide


def _side(
    grid: tuple[int, ...],
    grid_rows: tuple[int, ...],
    terms: tuple[tuple[AxisTable | None, ...], ...],
    classes: tuple[int, ...],
    lanes_per_vector: int,
) -> SidePlan:
    box, times = _best_box(grid, terms, classes, lanes_per_vector)
    axes = tuple(_cut(grid[a], classes[a], box[a] * times[a]) for a in range(AXES))
    vectors = tuple(_cut(grid[a], classes[a], box[a]) for a in range(AXES))
    row_order = tuple(_class_order(grid_rows[a], classes[a]) for a in range(AXES))
    cover = tuple(tuple(_cover(term[a], axes[a], grid_rows[a], classes[a]) for a in range(AXES)) for term in terms)
    rows = sum(prod(_rows_read(term[a], vectors[a], grid_rows[a], classes[a]) for a in range(AXES)) for term in terms)
    return SidePlan(prod(times) * lanes_per_vector, box, axes, row_order, cover, rows * lanes_per_vector)


def _best_box(
    grid: tuple[int, ...],
    terms: tuple[tuple[AxisTable | None, ...], ...],
    classes: tuple[int, ...],
    lanes_per_vector: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The box of one vector, and how many of them a tile holds per axis, that cost least: rows worked on by vectors
    plus what it costs to bring rows to tiles."""
    members = [-(-grid[a] // classes[a]) for a in range(AXES)]
    sizes = [range(1, min(lanes_per_vector, members[a]) + 1) for a in range(AXES)]
    boxes = [box for box in product(*sizes) if prod(box) <= lanes_per_vector]
    repeats = [times for times in product(VECTORS, repeat=AXES) if prod(times) in VECTORS]
    needed = [{box[a] * times[a] for box in boxes for times in repeats} for a in range(AXES)]
    rows = [
        {s: np.array([_rows(term[a], _cut(grid[a], classes[a], s), grid[a]) for term in terms]) for s in needed[a]}
        for a in range(AXES)
    ]

    def visited(box: tuple[int, ...]) -> float:
        return float(np.prod([rows[a][box[a]] for a in range(AXES)], axis=0).sum())

    best: tuple[float, tuple[int, ...], tuple[int, ...]] | None = None
    for box in boxes:
        worked = visited(box)
        for times in repeats:
            if any(times[a] > 1 and box[a] * times[a] > members[a] + box[a] - 1 for a in range(AXES)):
                continue  # vectors beyond the grid
            cost = worked + ROW_OVERHEAD * visited(tuple(box[a] * times[a] for a in range(AXES)))
            if best is None or cost < best[0]:
                best = (cost, box, times)
    assert best is not None
    return best[1], best[2]


def _rows(table: AxisTable | None, lanes: AxisLanes, queries: int) -> float:
    """Rows that all tiles of one axis visit together."""
    if table is None:
        return float(len(lanes.begin) - 1) * queries
    return float(_span(table, lanes)[1].sum())


def _rows_read(table: AxisTable | None, lanes: AxisLanes, rows: int, classes: int) -> int:
    """Rows that at least one lane of their tile sees, over all tiles of one axis; others are passed over unread."""
    if table is None:
        return (len(lanes.begin) - 1) * rows
    if table.step == classes:
        return int(_span(table, lanes)[1].sum())
    keys = np.arange(rows)
    tiles = (lanes.order[a:b].astype(np.int64) for a, b in pairwise(lanes.begin))
    return sum(int(table.allowed(tile[:, None], keys).any(axis=0).sum()) for tile in tiles)


def _class_order(length: int, classes: int) -> Ints:
    return np.concatenate([np.arange(c, length, classes, dtype=np.int32) for c in range(classes)])


def _cut(length: int, classes: int, size: int) -> AxisLanes:
    order = _class_order(length, classes)
    begin: list[int] = []
    base = 0
    for residue in range(classes):
        members = len(range(residue, length, classes))
        begin.extend(range(base, base + members, size))
        base += members
    return AxisLanes(order, np.array([*begin, base], dtype=np.int32))


def _span(table: AxisTable, lanes: AxisLanes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First (unrolled) row and number of rows that cover the intervals of each tile."""
    start, stop = table.start[lanes.order], table.stop[lanes.order]
    live = stop > start
    tiles = lanes.begin[:-1]
    first = np.minimum.reduceat(np.where(live, start, np.iinfo(np.int64).max), tiles)
    last = np.maximum.reduceat(np.where(live, stop, np.iinfo(np.int64).min), tiles)
    seen = last > first
    first = np.where(seen, first, 0)
    count = np.where(seen, -((first - last) // table.step), 0)
    residues = np.where(seen, first % table.step, 0)
    members = (table.length - residues + table.step - 1) // table.step
    return first, np.minimum(count, members)


def _cover(table: AxisTable | None, lanes: AxisLanes, rows: int, classes: int) -> Ints:
    """[tile, (base, size, first, count)]: a class of the row order, and the stretch of it that the tile may see."""
    tiles = len(lanes.begin) - 1
    if table is None or table.step != classes:
        # Dilations that do not match the classes: all rows, and the masks decide.
        base = np.zeros(tiles, np.int64)
        size = np.full(tiles, rows, np.int64)
        first = np.zeros(tiles, np.int64)
        count = size
        if classes > 1:
            raise AssertionError("lanes are split into classes although a term has another step")
        if table is not None:
            start, _ = _span(table, lanes)
            order_start, order_stop = table.start[lanes.order], table.stop[lanes.order]
            live = order_stop > order_start
            last = np.maximum.reduceat(np.where(live, order_stop, np.iinfo(np.int64).min), lanes.begin[:-1])
            any_live = np.maximum.reduceat(live, lanes.begin[:-1])
            count = np.where(any_live, np.minimum(last - start, rows), 0)
            first = np.where(any_live, start % max(rows, 1), 0)
        return _packed(base, size, first, count)
    start, count = _span(table, lanes)
    residue = start % classes
    members = (rows - residue + classes - 1) // classes
    sizes = np.array([len(range(c, rows, classes)) for c in range(classes)], dtype=np.int64)
    base = np.concatenate([[0], np.cumsum(sizes)[:-1]])[residue]
    return _packed(base, members, (start // classes) % np.maximum(members, 1), np.minimum(count, members))


def _packed(*columns: npt.NDArray[np.int64]) -> Ints:
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.int32)
