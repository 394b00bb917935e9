"""Choosing windows and strides: the sweep of the GNA paper, and suggestions for a grid and a density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import log, prod

from windeye.patterns import Neighborhood
from windeye.patterns.pattern import check_grid, per_axis
from windeye.tiling.boxes import Mode
from windeye.tiling.simulate import Reduce, Simulation, simulate, tile_of

DEFAULT_TILES = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}
"""Boxes of 64 tokens, as most kernels take them."""


def sweep_strides(
    pattern: Neighborhood,
    grid: Sequence[int],
    q_tile: int | Sequence[int],
    kv_tile: int | Sequence[int],
    *,
    mode: Mode = "static",
    reduce: Reduce = "max",
) -> list[Simulation]:
    """Every stride worth trying for a window: those that beat all smaller strides in the simulation.

    The paper's rule drops a stride that does not beat a smaller one (smaller or equal on every axis). Counts are
    products over axes, so the rule is applied axis by axis and the survivors are combined. The stride of ``pattern``
    itself is ignored. In order of speed-up, slowest first.

    Raises:
        TypeError: the pattern is no Neighborhood. ValueError: it does not fit the grid.

    Example:
        >>> kept = sweep_strides(Neighborhood(80), (256, 256), (16, 16), (16, 8))
        >>> kept[0].pattern, round(kept[0].end_to_end(0.518), 2)
        ('Neighborhood(kernel_size=80, stride=(1, 1))', 1.76)
        >>> kept[-1].pattern, round(kept[-1].end_to_end(0.518), 2)
        ('Neighborhood(kernel_size=80, stride=(16, 16))', 1.88)
    """
    if not isinstance(pattern, Neighborhood):
        raise TypeError(f"strides belong to a Neighborhood, got {pattern!r}")
    shape = check_grid(grid, "grid")
    rank = len(shape)
    plain = replace(pattern, stride=1)
    plain.bind(shape)  # refuses what does not fit, before the sweep begins
    kernel = per_axis(plain.kernel_size, rank, "kernel_size")
    dilation = per_axis(plain.dilation, rank, "dilation")
    causal = per_axis(plain.is_causal, rank, "is_causal")
    queries = tile_of(q_tile, rank, "q_tile")
    keys = tile_of(kv_tile, rank, "kv_tile")
    kept: list[list[int]] = []
    for axis in range(rank):
        window = shape[axis] // dilation[axis] if kernel[axis] == -1 else kernel[axis]
        best, strides = 0.0, []
        for stride in range(1, window + 1):
            one = Neighborhood(window, stride, dilation[axis], bool(causal[axis]), plain.boundary)
            speed = simulate(one, (shape[axis],), queries[axis], keys[axis], mode=mode, reduce=reduce).op_speedup
            if speed > best:
                best = speed
                strides.append(stride)
        kept.append(strides)
    found = [
        simulate(replace(plain, stride=stride), shape, queries, keys, mode=mode, reduce=reduce)
        for stride in product(*kept)
    ]
    return sorted(found, key=lambda simulation: simulation.op_speedup)


@dataclass(frozen=True)
class Suggestion:
    """A window for a grid, with its density and what the simulator says of it."""

    pattern: Neighborhood
    density: float
    simulation: Simulation


def suggest(
    grid: Sequence[int],
    density: float,
    *,
    q_tile: int | Sequence[int] | None = None,
    kv_tile: int | Sequence[int] | None = None,
    mode: Mode = "static",
    most: int = 8,
) -> list[Suggestion]:
    """Windows of about a density on a grid, best first.

    Windows are multiples of the key tile (or whole axes); the stride is, axis by axis, the smallest of 1, multiples of
    the query tile and the window that gives the largest speed-up. Ranked by closeness to the density (in steps of a
    fifth), by whether the window is shaped like the grid (ratios of axes within three), by whether no masking is
    needed, by how much it is shaped like the grid (in steps of a fifth), then by the speed-up.

    Args:
        grid: tokens per axis.
        density: wanted share of pairs, above 0 and at most 1.
        q_tile, kv_tile: tiles of the kernel; default boxes of 64 tokens, at most a quarter of each axis.
        mode: how key tiles are laid.
        most: how many to return.

    Raises:
        ValueError: a density outside (0, 1], tiles that do not fit the rank.

    Example:
        >>> suggest((256, 256), 0.1, q_tile=16, kv_tile=(16, 8))[0].pattern
        Neighborhood(kernel_size=(80, 80), stride=(16, 16))
    """
    shape = check_grid(grid, "grid")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must be above 0 and at most 1, got {density}")
    if 0 in shape:
        raise ValueError(f"grid must have tokens on every axis, got {shape}")
    rank = len(shape)
    usual = tuple(min(t, max(1, n // 4)) for t, n in zip(DEFAULT_TILES.get(rank, (4,) * rank), shape, strict=True))
    queries = usual if q_tile is None else tile_of(q_tile, rank, "q_tile")
    keys = usual if kv_tile is None else tile_of(kv_tile, rank, "kv_tile")
    axes = [sorted({*range(t, n + 1, t), n}) for n, t in zip(shape, keys, strict=True)]
    windows = sorted(product(*axes), key=lambda window: (_distance(window, shape, density), _skew(window, shape)))
    near = [window for window in windows if _distance(window, shape, density) <= log(1.5)] or windows[:most]
    found = []
    for window in sorted(near, key=lambda w: (_steps(_distance(w, shape, density)), _skew(w, shape)))[: 8 * most]:
        stride = tuple(_best_stride(*axis, mode) for axis in zip(window, shape, queries, keys, strict=True))
        pattern = Neighborhood(window, stride=stride)
        found.append(
            Suggestion(pattern, prod(window) / prod(shape), simulate(pattern, shape, queries, keys, mode=mode))
        )
    return sorted(found, key=lambda s: _rank(s, shape, density))[:most]


@lru_cache(maxsize=4096)
def _best_stride(window: int, length: int, q_tile: int, kv_tile: int, mode: Mode) -> int:
    """The smallest stride with the largest speed-up on one axis: 1, a multiple of the query tile, or the window."""
    strides = [1, *range(q_tile, window, q_tile), window]
    speed = {
        stride: simulate(Neighborhood(window, stride=stride), (length,), q_tile, kv_tile, mode=mode).op_speedup
        for stride in strides
    }
    return min(speed, key=lambda stride: (-speed[stride], stride))


def _rank(suggestion: Suggestion, shape: tuple[int, ...], density: float) -> tuple[int, bool, bool, int, float]:
    window = suggestion.pattern.kernel_size
    assert isinstance(window, tuple)
    return (
        _steps(_distance(window, shape, density)),
        _skew(window, shape) > log(3),
        not suggestion.simulation.fully_block_sparse,
        _steps(_skew(window, shape)),
        -suggestion.simulation.op_speedup,
    )


def _steps(distance: float) -> int:
    """Distances in steps of a fifth: what differs less counts as equally close."""
    return round(distance / log(1.2))


def _distance(window: tuple[int, ...], shape: tuple[int, ...], density: float) -> float:
    return abs(log(prod(window) / prod(shape) / density))


def _skew(window: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """How unlike the shapes of window and grid are: the range of log ratios over axes."""
    ratios = [log(w / n) for w, n in zip(window, shape, strict=True)]
    return max(ratios) - min(ratios)
