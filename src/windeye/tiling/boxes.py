"""Query boxes and the key tiles that each box visits, axis by axis, from the interval tables alone.

Kernels work on boxes of queries against tiles of keys; a tile that any query of the box may see is visited, and a
partially masked tile costs as much as a full one (gna spec, tile counting).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from windeye.patterns import AxisTable, Bound

Mode = Literal["static", "dynamic"]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MOST_CELLS = 1 << 28


@dataclass(frozen=True, eq=False)
class AxisVisits:
    """One axis of one term: which key tiles each query box visits, and how many positions lie in each."""

    visited: Bools
    """[boxes, tiles]. With dynamic tiling the tiles of a box are its own: the first ``n`` columns."""
    queries: Ints
    """[boxes] queries in each box."""
    keys: Ints
    """[boxes, tiles] keys in each tile."""

    @property
    def counts(self) -> Ints:
        return self.visited.sum(axis=1)


def common_classes(tables: list[AxisTable]) -> int:
    """Residue classes that kernels may treat as separate problems: the dilation, where all terms agree on it.

    With dilation ``d`` position ``i`` belongs to class ``i mod d`` and sees keys of its own class only. 1 where terms
    have different steps, or where the two grids differ so that queries and keys do not stand in step.
    """
    steps = {table.step for table in tables}
    if len(steps) != 1:
        return 1
    step = steps.pop()
    return step if step == 1 or all(_in_step(table) for table in tables) else 1


def _in_step(table: AxisTable) -> bool:
    live = table.stop > table.start
    return bool(np.all((table.start % table.step == np.arange(table.queries) % table.step)[live]))


@lru_cache(maxsize=256)
def visits(
    bound: Bound, q_tile: tuple[int, ...], kv_tile: tuple[int, ...], mode: Mode
) -> tuple[tuple[AxisVisits, ...], ...]:
    """For every term and axis, the tiles that are visited. Dilated axes are cut into their residue classes first.

    Raises:
        ValueError: so many boxes and tiles that counting them would not fit in memory.
    """
    classes = [common_classes([term[axis] for term in bound.terms]) for axis in range(bound.rank)]
    run = _static if mode == "static" else _dynamic
    return tuple(
        tuple(run(term[a], classes[a], q_tile[a], kv_tile[a], a) for a in range(bound.rank)) for term in bound.terms
    )


def _cut(length: int, classes: int, tile: int) -> tuple[Ints, Ints]:
    """For each position its tile, numbered class by class, and the number of positions in each tile."""
    where = np.arange(length)
    per_class = [-(-len(range(c, length, classes)) // tile) for c in range(classes)]
    base = np.concatenate([[0], np.cumsum(per_class)]).astype(np.int64)
    own = base[where % classes] + where // classes // tile
    return own, np.bincount(own, minlength=int(base[-1])).astype(np.int64)


def _static(table: AxisTable, classes: int, q_tile: int, kv_tile: int, axis: int) -> AxisVisits:
    box, queries = _cut(table.queries, classes, q_tile)
    tile, keys = _cut(table.length, classes, kv_tile)
    if len(queries) * len(keys) > MOST_CELLS:
        raise ValueError(
            f"axis {axis} has {len(queries)} boxes and {len(keys)} tiles, too many to count; use larger tiles"
        )
    visited = np.zeros((len(queries), len(keys) + 1), dtype=np.int64)
    for piece in table.unwrapped():
        live = np.flatnonzero(piece.stop > piece.start)
        start, stop = piece.start[live], piece.stop[live]
        if piece.step == classes:
            last = start + (stop - 1 - start) // piece.step * piece.step
            np.add.at(visited, (box[live], tile[start]), 1)
            np.add.at(visited, (box[live], tile[last] + 1), -1)
        else:
            for ahead in range(0, int((stop - start).max(initial=0)), piece.step):
                seen = start + ahead < stop
                here = tile[np.where(seen, start + ahead, 0)]
                np.add.at(visited, (box[live][seen], here[seen]), 1)
                np.add.at(visited, (box[live][seen], here[seen] + 1), -1)
    return AxisVisits(visited.cumsum(axis=1)[:, :-1] > 0, queries, np.broadcast_to(keys, (len(queries), len(keys))))


def _dynamic(table: AxisTable, classes: int, q_tile: int, kv_tile: int, axis: int) -> AxisVisits:
    """Each box tiles the keys anew from the start of its own window; the last tile ends with the axis."""
    box, queries = _cut(table.queries, classes, q_tile)
    live = table.stop > table.start
    first = np.full(len(queries), np.iinfo(np.int64).max)
    last = np.full(len(queries), np.iinfo(np.int64).min)
    step = table.step if table.step == classes else 1
    np.minimum.at(first, box[live], table.start[live])
    np.maximum.at(last, box[live], table.stop[live])
    seen = last > first
    first, last = np.where(seen, first, 0), np.where(seen, last, 0)
    members = -(-(table.length - first % step) // step)
    span = np.minimum(-(-(last - first) // step), members)
    room = members if table.wraps else -(-(table.length - first) // step)
    tiles = int((-(-span // kv_tile)).max(initial=1))
    if len(queries) * tiles > MOST_CELLS:
        raise ValueError(f"axis {axis} has {len(queries)} boxes of up to {tiles} tiles, too many; use larger tiles")
    begin = np.arange(tiles) * kv_tile
    visited = begin[None, :] < span[:, None]
    keys = np.clip(room[:, None] - begin[None, :], 0, kv_tile)
    return AxisVisits(visited, queries, keys)
