"""Queries in groups with resampled keys, and the patterns that can be told so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from windeye.patterns import Blocks, Pattern, Routed
from windeye.patterns.pattern import per_axis
from windeye.tokens import always, gather, merge, partition, windows

Rearrange = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Groups:
    """Queries in groups, each of which sees keys of its own.

    All three functions are linear and leave the last two axes, heads and width, alone; the width differs between calls.
    Keys and values go through the same ``resample``: it may crop, gather, pool, sample or mix positions.
    """

    split: Rearrange
    """Queries of the map, [batch, height, width, heads, c] -> [batch, groups, *cells, heads, c]."""
    join: Rearrange
    """Back to the map; undoes ``split``."""
    resample: Rearrange
    """Positions, [batch, *grid_kv, heads, c] -> keys of each group, [batch, groups, *cells_kv, heads, c]."""
    absent: Bool[Tensor, "batch_or_1 groups *cells_kv"] | None = None
    """True hides a key from its group."""
    told_as: tuple[Pattern, Tensor | None] | None = None
    """The pattern, and the keys that it hides from all, whose relation this is once more."""


def blocks_as_groups(pattern: Blocks, grid: tuple[int, int], device: torch.device) -> Groups:
    """The same relation as windows that are cut out."""
    down, right = per_axis(pattern.shift, 2, "shift")
    shift = (down, right)
    rows, columns = per_axis(pattern.size, 2, "size")
    # A window that covers its axis need not be filled up.
    size = (
        grid[0] if rows == -1 or (down == 0 and always(rows > grid[0])) else rows,
        grid[1] if columns == -1 or (right == 0 and always(columns > grid[1])) else columns,
    )
    absent = windows.absent(grid, size, shift, device)
    return Groups(
        split=lambda x: windows.partition(x, size, shift),
        join=lambda x: windows.merge(x, grid, shift),
        resample=lambda x: windows.partition(x, size, shift),
        absent=None if absent is None else absent[None],
    )


def routed_as_groups(
    pattern: Routed, grid: tuple[int, int], grid_kv: tuple[int, int], absent: Tensor | None = None
) -> Groups:
    """The same relation with every chosen region copied for every region.

    Args:
        pattern: its index is that of all heads, without -1 and without repetitions.
        grid, grid_kv: rows and columns of queries and of keys.
        absent: [batch or 1, rows, columns] of keys; True hides a key.
    """
    index = pattern.planes[:, 0]
    size, size_kv = ((rows, columns) for _, (rows, columns) in (pattern.cut(grid), pattern.cut(grid_kv)))

    def kept(x: Tensor) -> Tensor:
        return gather(partition(x, size_kv).flatten(2, 3), index)

    return Groups(
        split=lambda x: partition(x, size).flatten(2, 3),
        join=lambda x: merge(torch.unflatten(x, 2, size), grid),
        resample=kept,
        absent=None if absent is None else kept(absent.expand(len(index), -1, -1)[..., None])[..., 0],
        told_as=(pattern, absent),
    )
