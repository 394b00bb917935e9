"""What follows the mixer of a block: two linear maps, with or without a look at the neighbours between them."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """``fc2(gelu(fc1(x)))`` of every token; with ``depthwise``, ``fc2(gelu(conv(fc1(x))))``, where ``conv`` is a 3 x 3
    depthwise convolution of the map, zeros around it.

    Example:
        >>> import torch
        >>> FeedForward(8, 32, depthwise=True)(torch.randn(2, 5, 7, 8)).shape
        torch.Size([2, 5, 7, 8])
    """

    def __init__(self, dim: int, hidden: int, *, depthwise: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if depthwise else None
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        x = self.fc1(x)
        if self.depthwise is not None:
            x = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop(self.fc2(self.drop(F.gelu(x))))
