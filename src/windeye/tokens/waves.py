"""Where the tokens of a map stand, told by waves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def waves(height: int, width: int, dim: int, like: Tensor) -> Float[Tensor, "height width dim"]:
    """Sines and cosines of the column in the first half of the channels, of the row in the second.

    ``sin(p w_i), cos(p w_i)`` with ``w_i = 10000^(-4 i / dim)``, ``i`` from 0 to ``dim / 4 - 1``, as in masked
    autoencoders.

    Args:
        height, width: rows and columns of the map.
        dim: channels, a multiple of 4.
        like: tells device and dtype.

    Raises:
        ValueError: ``dim`` is no multiple of 4.

    Example:
        >>> waves(1, 2, 4, torch.empty(0))[0].tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.8414709568023682, 0.5403022766113281, 0.0, 1.0]]
    """
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4 to hold sines and cosines of rows and columns, got {dim}")
    speeds = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64, device=like.device) * 4 / dim)

    def axis(length: int) -> Tensor:
        angles = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * speeds
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    rows, columns = axis(height)[:, None], axis(width)[None]
    return torch.cat([columns.expand(height, -1, -1), rows.expand(-1, width, -1)], dim=-1).to(like.dtype)
