"""How much of a window's FLOP saving survives on hardware that works in tiles: an exact count, no kernel needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from math import inf, prod
from typing import Literal

import numpy as np

from windeye.patterns import Bound, Pattern
from windeye.patterns.pattern import check_axes, per_axis
from windeye.tiling.boxes import AxisVisits, Mode, visits

Reduce = Literal["max", "mean"]
MODES: tuple[Mode, ...] = ("static", "dynamic")
REDUCTIONS: tuple[Reduce, ...] = ("max", "mean")


@dataclass(frozen=True)
class Simulation:
    """Tiles counted for one pattern on one grid.

    ``op_speedup`` is (tiles that full attention visits) / (tiles that the pattern visits). With ``reduce="max"`` every
    box is taken to cost as much as the worst one, as in the paper; ``"mean"`` counts what each box visits.
    ``flop_speedup`` is (all pairs) / (the pattern's pairs): the bound that no tiling can pass.
    """

    pattern: str
    grid: tuple[int, ...]
    q_tile: tuple[int, ...]
    kv_tile: tuple[int, ...]
    mode: Mode
    reduce: Reduce
    op_speedup: float
    flop_speedup: float
    visited_tiles: int
    """Pairs of a query box and a key tile that are visited, all boxes together."""
    full_tiles: int
    """The same for full attention."""
    fully_block_sparse: bool
    """No visited tile is masked anywhere, so that a kernel may leave masking out."""

    @property
    def efficiency(self) -> float:
        """Share of the FLOP bound that is left."""
        return self.op_speedup / self.flop_speedup

    def end_to_end(self, share: float, dense_fraction: float = 0.0) -> float:
        """Speed-up of a whole workload of which attention is ``share``: ``1 / (1 - p + p / x)``.

        ``p = share (1 - dense_fraction)``, where ``dense_fraction`` of the steps keep full attention.

        Example:
            >>> from windeye.patterns import Neighborhood
            >>> s = simulate(Neighborhood((18, 24, 24), stride=(16, 8, 8)), (30, 48, 80), (4, 8, 8), (2, 8, 8))
            >>> round(s.end_to_end(0.607), 2)
            2.23
        """
        for name, value in (("share", share), ("dense_fraction", dense_fraction)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        p = share * (1.0 - dense_fraction)
        return 1.0 / (1.0 - p + p / self.op_speedup)

    def __str__(self) -> str:
        sparse = "fully block-sparse" if self.fully_block_sparse else "with partial tiles"
        return (
            f"{self.pattern} on {'x'.join(map(str, self.grid))}, {self.mode} tiles "
            f"{'x'.join(map(str, self.q_tile))} / {'x'.join(map(str, self.kv_tile))} ({self.reduce}): "
            f"{self.op_speedup:.2f}x of {self.flop_speedup:.2f}x ({self.efficiency:.0%}), {sparse}"
        )


def simulate(
    pattern: Pattern,
    grid: Sequence[int],
    q_tile: int | Sequence[int],
    kv_tile: int | Sequence[int],
    *,
    mode: Mode = "static",
    reduce: Reduce = "max",
) -> Simulation:
    """Count the key tiles that boxes of queries visit, and what that leaves of the FLOP bound.

    Static tiles lie fixed on the grid; dynamic ones are laid anew from the start of each box's window. Dilated axes are
    cut into their residue classes, each tiled on its own. In a union, static tiles that several parts visit count
    once; with dynamic tiling each part lays its own tiles.

    Args:
        pattern: who sees whom.
        grid: tokens per axis, queries and keys alike.
        q_tile, kv_tile: box of queries and of keys that the hardware handles at once; an integer counts for every axis.
        mode: "static" or "dynamic".
        reduce: "max" or "mean".

    Raises:
        ValueError: an unknown mode or reduction, tiles that do not fit the rank; the pattern does not fit the grid.

    Example:
        >>> from windeye.patterns import Neighborhood
        >>> simulate(Neighborhood((80, 80), stride=16), (256, 256), (16, 16), (16, 8)).op_speedup
        10.24
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    bound = pattern.bind(grid)
    boxes, tiles = tile_of(q_tile, bound.rank, "q_tile"), tile_of(kv_tile, bound.rank, "kv_tile")
    full = prod(-(-n // t) for n, t in zip(bound.grid, boxes, strict=True)) * prod(
        -(-n // t) for n, t in zip(bound.grid_kv, tiles, strict=True)
    )
    terms = visits(bound, boxes, tiles, mode)
    per_box = _union(terms, mode, lambda _axis, seen: seen.sum(axis=1))
    visited = int(per_box.sum())
    cost = visited if reduce == "mean" else per_box.size * int(per_box.max(initial=0))
    return Simulation(
        pattern=pattern.spec,
        grid=bound.grid,
        q_tile=boxes,
        kv_tile=tiles,
        mode=mode,
        reduce=reduce,
        op_speedup=full / cost if cost else inf,
        flop_speedup=1 / bound.density() if bound.pairs() else inf,
        visited_tiles=visited,
        full_tiles=full,
        fully_block_sparse=_unmasked(bound, terms, mode),
    )


def is_fully_block_sparse(
    pattern: Pattern,
    grid: Sequence[int],
    q_tile: int | Sequence[int],
    kv_tile: int | Sequence[int],
    *,
    mode: Mode = "static",
) -> bool:
    """Whether every visited tile is seen whole, so that no masking is needed (gna spec, exact test).

    Example:
        >>> from windeye.patterns import Neighborhood
        >>> is_fully_block_sparse(Neighborhood(8, stride=8), (32,), 4, 4)
        True
        >>> is_fully_block_sparse(Neighborhood(8, stride=4), (32,), 4, 4)
        False
        >>> is_fully_block_sparse(Neighborhood(8, stride=4), (32,), 4, 4, mode="dynamic")
        True
    """
    bound = pattern.bind(grid)
    terms = visits(bound, tile_of(q_tile, bound.rank, "q_tile"), tile_of(kv_tile, bound.rank, "kv_tile"), mode)
    return _unmasked(bound, terms, mode)


def tile_of(tile: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """A tile as one size per axis."""
    return per_axis(check_axes(tuple(tile) if isinstance(tile, Sequence) else tile, name, 1), rank, name)


def _unmasked(bound: Bound, terms: tuple[tuple[AxisVisits, ...], ...], mode: Mode) -> bool:
    """All pairs inside visited tiles are allowed exactly when both are equally many."""
    area = _union(terms, mode, lambda axis, seen: axis.queries * (axis.keys * seen).sum(axis=1))
    return int(area.sum()) == bound.pairs()


def _union(
    terms: tuple[tuple[AxisVisits, ...], ...],
    mode: Mode,
    measure: Callable[[AxisVisits, np.ndarray], np.ndarray],
) -> np.ndarray:
    """For each query box a measure of the tiles it visits: a product over axes, and over terms a union of products."""
    if not terms:
        return np.zeros(1, dtype=np.int64)
    sizes = range(1, len(terms) + 1) if mode == "static" else (1,)
    total = np.zeros((), dtype=np.int64)
    for size in sizes:
        for chosen in combinations(terms, size):
            axes = [
                measure(parts[0], reduce(np.logical_and, [part.visited for part in parts]))
                for parts in zip(*chosen, strict=True)
            ]
            total = total + (1 if size % 2 else -1) * reduce(np.multiply.outer, axes)
    return np.asarray(total)
