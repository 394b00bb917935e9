"""Downsampling that reads each of its pixels somewhere near where it lies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.models.vision.entries import entry
from windeye.nn.norms import ChannelsLastBatchNorm
from windeye.tokens import fill, sample

OFFSET_RATE = 0.01
"""Learning rate of offsets over that of other weights, as LITv2 was trained (hilo spec)."""


class DeformableMerge(nn.Module):
    """``gelu(batch_norm(conv(x')))`` with a 2 x 2 convolution of stride 2, where each pixel of ``x'`` is a bilinear
    sample of ``x``, moved by ``offset(x)`` from the pixel's own place (deformable token merging of LITv2).

    Offsets are (down, right) in pixels, a pair for each of the four pixels of a cell, row by row; they start at zero,
    where it is a plain convolution. Pixels outside of the map are zero.

    Args:
        in_dim, dim: channels before and after.
        drop_rim: whether the last row or column of an odd map is lost, as in the official detectors; otherwise the map
            is filled up with zeros at its right and bottom.

    Source: hilo spec, patch embedding.

    Example:
        >>> DeformableMerge(8, 16)(torch.randn(2, 5, 6, 8)).shape
        torch.Size([2, 3, 3, 16])
    """

    def __init__(self, in_dim: int, dim: int, *, drop_rim: bool = False) -> None:
        super().__init__()
        self.drop_rim = drop_rim
        self.offset = nn.Conv2d(in_dim, 8, 2, 2)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)
        self.conv = nn.Conv2d(in_dim, dim, 2, 2)
        self.norm = ChannelsLastBatchNorm(dim)

    def rate_factors(self) -> dict[str, float]:
        """Names of parameters that an optimizer should move more slowly, and by how much: the offsets."""
        return {f"offset.{name}": OFFSET_RATE for name, _ in self.offset.named_parameters()}

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        """
        Raises:
            ValueError: with ``drop_rim``, the map has no whole cell.
        """
        if not self.drop_rim:
            x = fill(x, (2, 2))
        elif min(x.shape[1:3]) < 2:
            raise ValueError(f"a map of {x.shape[1]} x {x.shape[2]} has no cell of 2 x 2 pixels left without its rim")
        moved = self.moved(x).permute(0, 3, 1, 2)
        return F.gelu(self.norm(self.conv(moved).permute(0, 2, 3, 1)))

    def moved(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch tall wide in_dim"]:
        """The pixels that the convolution reads, whole cells of them."""
        _, height, width, _ = x.shape
        offset = self.offset(x.permute(0, 3, 1, 2))
        rows, columns = offset.shape[2:]
        # Places in bfloat16 would be a tenth of a pixel off.
        kind = torch.promote_types(offset.dtype, torch.float32)
        shift = offset.to(kind).unflatten(1, (2, 2, 2)).permute(0, 4, 1, 5, 2, 3).reshape(-1, 2 * rows, 2 * columns, 2)
        down, right = (torch.arange(2 * n, dtype=kind, device=x.device) for n in (rows, columns))
        y, z = shift[..., 0] + down[:, None], shift[..., 1] + right
        at = torch.stack((2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1), dim=-1)
        return sample(x.to(kind)[..., None, :], at[:, None])[..., 0, :].to(x.dtype)


@entry("deformable")
@dataclass(frozen=True)
class DeformableSpec:
    """`DeformableMerge`."""

    kind: ClassVar[str]
    drop_rim: bool = False
    stride: ClassVar[int] = 2
    middle: ClassVar[float] = 0.5

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return DeformableMerge(in_dim, dim, **asdict(self))
