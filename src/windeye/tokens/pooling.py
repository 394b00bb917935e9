"""Means over the cells of a map."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.tokens.windows import Pair, margins


def pool(
    x: Float[Tensor, "batch height width *rest"], cell: Pair, *, count_padding: bool = True
) -> Float[Tensor, "batch rows columns *rest"]:
    """The mean of each cell of ``cell`` rows and columns of tokens.

    Args:
        x: a map, channels last; any number of axes after its width.
        cell: rows and columns of a cell. Cells that reach over the right or bottom rim are filled up with zeros.
        count_padding: whether those zeros count in the mean; otherwise it is over the tokens that are there.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 3.0, 5.0]]).reshape(1, 1, 3)
        >>> pool(x, (1, 2)), pool(x, (1, 2), count_padding=False)
        (tensor([[[2.0000, 2.5000]]]), tensor([[[2., 5.]]]))
    """
    height, width = x.shape[1:3]
    rest = x.shape[3:]
    (_, bottom), (_, right) = margins((height, width), cell)
    flat = x.reshape(*x.shape[:3], -1).permute(0, 3, 1, 2)
    if count_padding:
        flat = F.pad(flat, (0, right, 0, bottom))
        pooled = F.avg_pool2d(flat, cell)
    else:
        pooled = F.avg_pool2d(flat, cell, ceil_mode=True)
    return pooled.permute(0, 2, 3, 1).reshape(x.shape[0], *pooled.shape[2:], *rest)
