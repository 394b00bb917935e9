"""A map cut into windows, and put together again.

Borders lie at multiples of ``size`` plus ``shift``, as those of `windeye.Blocks`. Windows that reach over the rim are
filled up with zeros.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Pair = tuple[int, int]


def margins(grid: Pair, size: Pair, shift: Pair = (0, 0)) -> tuple[Pair, Pair]:
    """What is missing to whole windows before and after each axis.

    Example:
        >>> margins((7, 8), (4, 4), (0, 2))
        ((0, 1), (2, 2))
    """
    before = [-s % w for w, s in zip(size, shift, strict=True)]
    # Remainders of positive numbers only: those of negative ones cannot be traced for sizes that vary.
    after = [(w - (n + b) % w) % w for n, w, b in zip(grid, size, before, strict=True)]
    return (before[0], after[0]), (before[1], after[1])


def fill(x: Float[Tensor, "batch height width *rest"], cell: Pair) -> Float[Tensor, "batch tall wide *rest"]:
    """The map with zeros at its right and bottom, up to whole cells.

    Example:
        >>> fill(torch.ones(1, 3, 4), (2, 2))[0].int().tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    """
    (_, bottom), (_, right) = margins((x.shape[1], x.shape[2]), cell)
    if not (bottom or right):
        return x
    return F.pad(x, (*(0, 0) * (x.dim() - 3), 0, right, 0, bottom))


def partition(
    x: Float[Tensor, "batch height width *rest"], size: Pair, shift: Pair = (0, 0)
) -> Float[Tensor, "batch windows rows columns *rest"]:
    """The windows of a map, row by row.

    Example:
        >>> partition(torch.arange(6.0).reshape(1, 2, 3), (2, 2))
        tensor([[[[0., 1.],
                  [3., 4.]],
        <BLANKLINE>
                 [[2., 0.],
                  [5., 0.]]]])
    """
    (top, bottom), (left, right) = margins((x.shape[1], x.shape[2]), size, shift)
    if top or bottom or left or right:
        rest = x.dim() - 3
        x = F.pad(x, (*(0, 0) * rest, left, right, top, bottom))
    tiles = torch.unflatten(torch.unflatten(x, 2, (-1, size[1])), 1, (-1, size[0]))
    return tiles.transpose(2, 3).flatten(1, 2)


def merge(
    windows: Float[Tensor, "batch windows rows columns *rest"], grid: Pair, shift: Pair = (0, 0)
) -> Float[Tensor, "batch height width *rest"]:
    """The map whose `partition` these are; what was filled up is cut off.

    Example:
        >>> x = torch.randn(2, 5, 7, 3)
        >>> torch.equal(merge(partition(x, (3, 2), (1, 1)), (5, 7), (1, 1)), x)
        True
    """
    size = (windows.shape[2], windows.shape[3])
    (top, bottom), (left, _) = margins(grid, size, shift)
    rows = (top + grid[0] + bottom) // size[0]
    tiles = torch.unflatten(windows, 1, (rows, -1)).transpose(2, 3)
    x = tiles.flatten(3, 4).flatten(1, 2)
    return x[:, top : top + grid[0], left : left + grid[1]]


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # else what inference has cached could not be trained with
def absent(
    grid: Pair, size: Pair, shift: Pair = (0, 0), device: torch.device | str = "cpu"
) -> Bool[Tensor, "windows rows columns"] | None:
    """True where a window is filled up; None where no window is.

    Example:
        >>> absent((2, 3), (2, 2)).int().tolist()
        [[[0, 0], [0, 0]], [[0, 1], [0, 1]]]
    """
    if not any(sum(margins(grid, size, shift), ())):
        return None
    return partition(torch.ones(1, *grid, device=device), size, shift)[0] == 0
