"""Three convolutions beside attention: what is local does not have to be learned by attention."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ConvBranch(nn.Module):
    """``conv3(silu(norm2(conv2(silu(norm1(conv1(x)))))))``, 3 x 3 each, maps channels last (the parallel convolutions
    of ViTAE).

    Args:
        widths: channels before, between and after the convolutions.
        groups: of every convolution.
        strides: of every convolution; a map that they do not divide must have been filled up.

    Source: vsa spec, configurations.

    Example:
        >>> import torch
        >>> ConvBranch((8, 32, 8, 8), groups=4)(torch.randn(2, 5, 7, 8)).shape
        torch.Size([2, 5, 7, 8])
    """

    def __init__(
        self, widths: tuple[int, int, int, int], groups: int = 1, strides: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(a, b, 3, stride, padding=1, groups=groups)
            for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.norm1, self.norm2 = nn.BatchNorm2d(widths[1]), nn.BatchNorm2d(widths[2])

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        x = F.silu(self.norm1(self.conv1(x.permute(0, 3, 1, 2))))
        return self.conv3(F.silu(self.norm2(self.conv2(x)))).permute(0, 2, 3, 1)
