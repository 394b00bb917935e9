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

from windeye.tokens.sizes import always

Pair = tuple[int, int]


def margins(grid: Pair, size: Pair, shift: Pair = (0, 0)) -> tuple[Pair, Pair]:
    """What is missing to whole windows before and after each axis.

    Example:
        >>> margins((7, 8), (4, 4), (0, 2))
        ((0, 1), (2, 2))
    """
    before = [-s % w for w, s in zip(size, shift, strict=True)]
    after = [c * w - n - b for c, w, n, b in zip(counts(grid, size, shift), size, grid, before, strict=True)]
    return (before[0], after[0]), (before[1], after[1])


def counts(grid: Pair, size: Pair, shift: Pair = (0, 0)) -> Pair:
    """Windows along each axis, those that the rim cuts included.

    Example:
        >>> counts((7, 8), (4, 4), (0, 2))
        (2, 3)
    """
    rows, columns = (-(-(n + -s % w) // w) for n, w, s in zip(grid, size, shift, strict=True))
    return rows, columns


def fill(x: Float[Tensor, "batch height width *rest"], cell: Pair) -> Float[Tensor, "batch tall wide *rest"]:
    """The map with zeros at its right and bottom, up to whole cells.

    Example:
        >>> fill(torch.ones(1, 3, 4), (2, 2))[0].int().tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    """
    return frame(x, margins((x.shape[1], x.shape[2]), cell))


def frame(
    x: Float[Tensor, "batch height width *rest"], zeros: tuple[Pair, Pair]
) -> Float[Tensor, "batch tall wide *rest"]:
    """The map with so many rows of zeros before and after it, and so many columns.

    Example:
        >>> frame(torch.ones(1, 1, 2), ((0, 1), (1, 0)))[0].int().tolist()
        [[0, 1, 1], [0, 0, 0]]
    """
    (top, bottom), (left, right) = zeros
    if always(top + bottom + left + right == 0):
        return x
    return F.pad(x, (*(0, 0) * (x.dim() - 3), left, right, top, bottom))


def crop(
    x: Float[Tensor, "batch tall wide *rest"], grid: Pair, at: Pair = (0, 0)
) -> Float[Tensor, "batch height width *rest"]:
    """The part of a map of ``grid`` rows and columns that begins at row and column ``at``.

    Example:
        >>> crop(torch.arange(6.0).reshape(1, 2, 3), (1, 2), (0, 1))
        tensor([[[1., 2.]]])
    """
    bottom, right = (whole - start - n for whole, start, n in zip(x.shape[1:3], at, grid, strict=True))
    # No view: strides that tell what is left out would be another graph, and what reads the part next would copy it.
    return frame(x, ((-at[0], -bottom), (-at[1], -right)))


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
    grid = (x.shape[1], x.shape[2])
    rows, columns = counts(grid, size, shift)
    x = frame(x, margins(grid, size, shift))
    tiles = torch.unflatten(torch.unflatten(x, 2, (columns, size[1])), 1, (rows, size[0]))
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
    (top, _), (left, _) = margins(grid, size, shift)
    tiles = torch.unflatten(windows, 1, counts(grid, size, shift)).transpose(2, 3)
    return crop(tiles.flatten(3, 4).flatten(1, 2), grid, (top, left))


def absent(
    grid: Pair, size: Pair, shift: Pair = (0, 0), device: torch.device | str = "cpu"
) -> Bool[Tensor, "windows rows columns"] | None:
    """True where a window is filled up; None where no window is.

    Example:
        >>> absent((2, 3), (2, 2)).int().tolist()
        [[[0, 0], [0, 0]], [[0, 1], [0, 1]]]
    """
    if always(sum(sum(margins(grid, size, shift), ())) == 0):
        return None
    return (_absent if torch.compiler.is_compiling() else _absent_once)(grid, size, shift, device)


def _absent(grid: Pair, size: Pair, shift: Pair, device: torch.device | str) -> Tensor:
    return partition(torch.ones(1, *grid, device=device), size, shift)[0] == 0


# Without inference mode, else what inference has cached could not be trained with.
_absent_once = lru_cache(maxsize=64)(torch.inference_mode(mode=False)(_absent))
