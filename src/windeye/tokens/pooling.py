"""Means over the cells of a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.tokens.sizes import always
from windeye.tokens.windows import Pair, counts, fill, margins


def pool(
    x: Float[Tensor, "batch height width *rest"], cell: Pair, *, count_padding: bool = True
) -> Float[Tensor, "batch rows columns *rest"]:
    """The mean of each cell of ``cell`` rows and columns of tokens.

    Args:
        x: a map, channels last; any number of axes after its width.
        cell: rows and columns of a cell. Cells that reach over the right or bottom rim are filled up with zeros.
        count_padding: whether those zeros count in the mean; otherwise it is over the tokens that are there.

    Example:
        >>> x = torch.tensor([[1.0, 3.0, 5.0]]).reshape(1, 1, 3)
        >>> pool(x, (1, 2)), pool(x, (1, 2), count_padding=False)
        (tensor([[[2.0000, 2.5000]]]), tensor([[[2., 5.]]]))
    """
    grid = (x.shape[1], x.shape[2])
    if not torch.compiler.is_compiling() and not (torch.is_grad_enabled() and x.requires_grad):
        return _pooled(x, cell, count_padding)
    rows, columns = counts(grid, cell)
    tiles = torch.unflatten(torch.unflatten(fill(x, cell), 2, (columns, cell[1])), 1, (rows, cell[0]))
    # Axis by axis: torch's pooling is faster, but its gradient takes several times as long, and in a graph its cells
    # cannot vary.
    sums = tiles.sum(2, dtype=torch.promote_types(x.dtype, torch.float32)).sum(3)
    if count_padding or always(sum(sum(margins(grid, cell), ())) == 0):
        return (sums / (cell[0] * cell[1])).to(x.dtype)
    down, across = (
        (n - size * torch.arange(count, device=x.device)).clamp(max=size)
        for n, size, count in zip(grid, cell, (rows, columns), strict=True)
    )
    there = torch.outer(down, across)
    return (sums / there.reshape(rows, columns, *(1,) * (x.dim() - 3))).to(x.dtype)


def _pooled(x: Tensor, cell: Pair, count_padding: bool) -> Tensor:
    filled = fill(x, cell) if count_padding else x
    flat = filled.reshape(*filled.shape[:3], -1).permute(0, 3, 1, 2)
    pooled = F.avg_pool2d(flat, cell, ceil_mode=not count_padding).permute(0, 2, 3, 1)
    return pooled.reshape(*pooled.shape[:3], *x.shape[3:])
