"""Windows over grids: neighbourhoods with stride and dilation, and their named relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from windeye.patterns.bound import Grid, Term
from windeye.patterns.pattern import Axes, Pattern, check_axes, is_int, per_axis
from windeye.patterns.position import positions
from windeye.patterns.table import AxisTable, full_table

Boundary = Literal["clamp", "truncate", "wrap"]
BOUNDARIES = ("clamp", "truncate", "wrap")
WHOLE_AXIS = -1


@dataclass(frozen=True, repr=False)
class Neighborhood(Pattern):
    """Each query sees a window of its nearest keys; adjacent queries may share one window (stride).

    Per axis, for a query at local index ``i`` of its dilation class of length ``L``, window ``W`` and stride ``s``::

        leader = min(i // s * s + s // 2, L - 1)             start = clamp(leader - W // 2, 0, L - W)
        causal:  leader = min(i // s * s + s - 1, L - 1)     start = max(leader - W + 1, 0), keys start .. i

    A window counts the query itself; an even window looks one further to the left. ``boundary`` says what happens at
    the rim: ``"clamp"`` pushes the window back inside (always ``W`` keys), ``"truncate"`` cuts it off, ``"wrap"``
    goes on at the other end. Stride counts positions of the dilation class. ``s = 1`` is neighbourhood attention,
    ``s = W`` with ``W`` dividing the axis is blocked attention. Source: gna spec, exact mask semantics.

    Args:
        kernel_size: keys per axis, at least 1; -1 is the whole axis.
        stride: queries that share a window, 1 <= stride <= kernel_size.
        dilation: distance between the keys of a window; dilation * kernel_size <= length.
        is_causal: per axis, whether keys after the query are hidden.
        boundary: "clamp", "truncate" or "wrap".

    Differs from: FlashAttention's ``window_size=(left, right)``, which excludes the query itself from both counts.

    Example:
        >>> Neighborhood(5, stride=2).bind((8,)).keys_of(2)
        [1, 2, 3, 4, 5]
    """

    kernel_size: Axes
    stride: Axes = 1
    dilation: Axes = 1
    is_causal: bool | tuple[bool, ...] = False
    boundary: Boundary = "clamp"

    def __post_init__(self) -> None:
        for name, also in (("kernel_size", (WHOLE_AXIS,)), ("stride", ()), ("dilation", ())):
            object.__setattr__(self, name, check_axes(getattr(self, name), name, 1, also=also))
        flags = self.is_causal if isinstance(self.is_causal, tuple | list) else (self.is_causal,)
        if not flags or not all(isinstance(flag, bool) for flag in flags):
            raise TypeError(f"is_causal must be a bool or a tuple of bools, got {self.is_causal!r}")
        if isinstance(self.is_causal, list):
            object.__setattr__(self, "is_causal", tuple(flags))
        if self.boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {BOUNDARIES}, got {self.boundary!r}")

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        rank = len(grid)
        kernel = per_axis(self.kernel_size, rank, "kernel_size")
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        causal = per_axis(self.is_causal, rank, "is_causal")
        tables = []
        for axis in range(rank):
            queries, keys = grid[axis], grid_kv[axis]
            window = keys // dilation[axis] if kernel[axis] == WHOLE_AXIS else kernel[axis]
            _check_axis(axis, keys, window, stride[axis], dilation[axis], self.boundary)
            where = positions(queries, keys, causal=bool(causal[axis]))
            tables.append(_axis(where, keys, window, stride[axis], dilation[axis], bool(causal[axis]), self.boundary))
        return (tuple(tables),)


def _check_axis(axis: int, keys: int, window: int, stride: int, dilation: int, boundary: Boundary) -> None:
    if window * dilation > keys or window < 1:
        raise ValueError(
            f"kernel_size {window} with dilation {dilation} needs {max(window, 1) * dilation} keys "
            f"but axis {axis} has {keys}; "
            f"the largest valid kernel_size there is {keys // dilation}"
        )
    if stride > window:
        raise ValueError(
            f"stride {stride} is larger than kernel_size {window} on axis {axis}; it must be at most {window}"
        )
    if boundary == "wrap" and keys % dilation:
        raise ValueError(f'boundary "wrap" needs dilation {dilation} to divide the {keys} keys of axis {axis}')


def _axis(
    where: np.ndarray, keys: int, window: int, stride: int, dilation: int, causal: bool, boundary: Boundary
) -> AxisTable:
    residue, local = where % dilation, where // dilation
    length = (keys - residue + dilation - 1) // dilation
    group = local // stride * stride
    if causal:
        leader = np.minimum(group + stride - 1, length - 1)
        start, stop = leader - window + 1, local + 1
        if boundary != "wrap":
            start = np.maximum(start, 0)
    else:
        leader = np.minimum(group + stride // 2, length - 1)
        start = leader - window // 2
        stop = start + window
        if boundary == "clamp":
            start = np.clip(start, 0, length - window)
            stop = start + window
        elif boundary == "truncate":
            start, stop = np.maximum(start, 0), np.minimum(stop, length)
    seen = (where >= 0) & (stop > start)
    start = np.where(seen, residue + dilation * start, 0)
    stop = np.where(seen, residue + dilation * (stop - 1) + 1, 0)
    return AxisTable(start, stop, dilation, keys)


@dataclass(frozen=True, repr=False)
class Sliding(Pattern):
    """A window over a sequence, cut off at its ends: ``window`` keys including the query itself.

    Causal: keys ``i - window + 1 .. i``. Otherwise ``window // 2`` keys before the query and the rest after it.
    A window longer than the sequence sees all of it. Queries and keys of different lengths are aligned at the end.

    Example:
        >>> Sliding(3).bind((6,)).keys_of(4)
        [2, 3, 4]
    """

    window: int
    is_causal: bool = True

    def __post_init__(self) -> None:
        _one_int(self, "window")
        if not isinstance(self.is_causal, bool):
            raise TypeError(f"is_causal must be a bool, got {self.is_causal!r}")

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        sequence_only(self, grid)
        keys = grid_kv[0]
        where = positions(grid[0], keys, causal=True)
        left = self.window - 1 if self.is_causal else self.window // 2
        start = np.clip(where - left, 0, keys)
        stop = np.clip(where + (1 if self.is_causal else self.window - left), 0, keys)
        return ((AxisTable(start, np.maximum(stop, start), 1, keys),),)


@dataclass(frozen=True, repr=False)
class Blocks(Pattern):
    """Non-overlapping blocks whose borders lie at multiples of ``size`` plus ``shift`` (Swin's windows).

    Blocks at the rim may be smaller: with a shift they are exactly the regions that Swin's mask separates. A size of -1
    is the whole axis.

    Differs from: Swin, which pads the grid to whole windows and lets padded tokens be seen.

    Example:
        >>> Blocks(4, shift=2).bind((8,)).keys_of(0), Blocks(4, shift=2).bind((8,)).keys_of(5)
        ([0, 1], [2, 3, 4, 5])
    """

    size: Axes
    shift: Axes = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_axes(self.size, "size", 1, also=(-1,)))
        object.__setattr__(self, "shift", check_axes(self.shift, "shift", 0))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        size, shift = per_axis(self.size, len(grid), "size"), per_axis(self.shift, len(grid), "shift")
        size = tuple(max(pair) if n == -1 else n for n, pair in zip(size, zip(grid, grid_kv, strict=True), strict=True))
        tables = []
        for axis, (queries, keys) in enumerate(zip(grid, grid_kv, strict=True)):
            if shift[axis] >= size[axis]:
                raise ValueError(f"shift {shift[axis]} must be smaller than size {size[axis]} on axis {axis}")
            block = (positions(queries, keys, causal=False) - shift[axis]) // size[axis] * size[axis] + shift[axis]
            tables.append(AxisTable(np.maximum(block, 0), np.minimum(block + size[axis], keys), 1, keys))
        return (tuple(tables),)


@dataclass(frozen=True, repr=False)
class Halo(Pattern):
    """Blocks of queries that see their own block and ``halo`` keys around it (HaloNet), cut off at the rim.

    In the interior this is ``Neighborhood(block + 2 * halo, stride=block)``.

    Example:
        >>> Halo(4, 1).bind((12,)).keys_of(5)
        [3, 4, 5, 6, 7, 8]
    """

    block: Axes
    halo: Axes

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", check_axes(self.block, "block", 1))
        object.__setattr__(self, "halo", check_axes(self.halo, "halo", 0))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        block, halo = per_axis(self.block, len(grid), "block"), per_axis(self.halo, len(grid), "halo")
        tables = []
        for axis, (queries, keys) in enumerate(zip(grid, grid_kv, strict=True)):
            first = positions(queries, keys, causal=False) // block[axis] * block[axis]
            start = np.maximum(first - halo[axis], 0)
            tables.append(AxisTable(start, np.minimum(first + block[axis] + halo[axis], keys), 1, keys))
        return (tuple(tables),)


@dataclass(frozen=True, repr=False)
class TileWindow(Pattern):
    """Sliding tile attention: each tile of queries sees a window of ``tiles`` whole tiles, pushed inside at the rim.

    For an odd number of tiles this is ``Neighborhood(tiles * tile, stride=tile)`` (checked); for an even number the
    neighbourhood is off by half a tile while this window stays on tile borders, one tile further to the left.
    The last tile of an axis may be short.

    Example:
        >>> TileWindow(2, 3).bind((10,)).keys_of(0), TileWindow(2, 3).bind((10,)).keys_of(5)
        ([0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7])
    """

    tile: Axes
    tiles: Axes

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", check_axes(self.tile, "tile", 1))
        object.__setattr__(self, "tiles", check_axes(self.tiles, "tiles", 1))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        tile, tiles = per_axis(self.tile, len(grid), "tile"), per_axis(self.tiles, len(grid), "tiles")
        tables = []
        for axis, (queries, keys) in enumerate(zip(grid, grid_kv, strict=True)):
            number = -(-keys // tile[axis])
            if tiles[axis] > number:
                raise ValueError(
                    f"tiles {tiles[axis]} is larger than the {number} tiles of {tile[axis]} keys on axis {axis}"
                )
            own = positions(queries, keys, causal=False) // tile[axis]
            first = np.clip(own - tiles[axis] // 2, 0, number - tiles[axis]) * tile[axis]
            tables.append(AxisTable(first, np.minimum(first + tiles[axis] * tile[axis], keys), 1, keys))
        return (tuple(tables),)


@dataclass(frozen=True, repr=False)
class Inward(Pattern):
    """FreeSwim's window of the training size: half size ``r = train // 2``, window ``2 r + 1``, pushed inwards.

    An axis with ``train_shape`` -1, or one that the window would outgrow, is not restricted (freeswim spec, part 1).

    Example:
        >>> Inward(4).bind((9,)).keys_of(0)
        [0, 1, 2, 3, 4]
    """

    train_shape: Axes

    def __post_init__(self) -> None:
        object.__setattr__(self, "train_shape", check_axes(self.train_shape, "train_shape", 1, also=(WHOLE_AXIS,)))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        tables = []
        for train, queries, keys in zip(
            per_axis(self.train_shape, len(grid), "train_shape"), grid, grid_kv, strict=True
        ):
            window = 2 * (train // 2) + 1
            if train == WHOLE_AXIS or window >= keys:
                tables.append(full_table(queries, keys))
            else:
                tables.append(_axis(positions(queries, keys, causal=False), keys, window, 1, 1, False, "clamp"))
        return (tuple(tables),)


def sequence_only(pattern: Pattern, grid: Grid) -> None:
    """Refuse grids of more than one axis for patterns that are about sequences."""
    if len(grid) != 1:
        name = type(pattern).__name__
        raise ValueError(
            f"{name} is defined on a sequence, got a grid of {len(grid)} axes {grid}; flatten it or use Neighborhood"
        )


def _one_int(pattern: Pattern, name: str, minimum: int = 1) -> None:
    value = getattr(pattern, name)
    if not is_int(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    object.__setattr__(pattern, name, check_axes(value, name, minimum))
