"""Downsampling by dilated convolutions, attention and plain convolutions at once: the reduction cell of ViTAE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.models.vision.conv_branch import ConvBranch
from windeye.models.vision.entries import entry
from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixers import VSAMixer
from windeye.tokens import fill

POSITION = 7
"""Side of the convolution for positions, whatever the window (vsa spec)."""


class ReductionCell(nn.Module):
    """One stage smaller, at several scales: ``y + feed_forward(norm(y))`` with ``y = attention(norm(p + position(p))) +
    conv_branch(x)`` and ``p`` the channels of ``gelu(conv_d(x))`` for every dilation ``d``, one after the other.

    Attention has no shortcut, for it changes the width. A map that does not divide by the stride is filled up with
    zeros at its right and bottom.

    Args:
        in_dim, dim: channels before and after.
        embed: channels of every dilated convolution.
        dilations, kernel_size, stride: of the dilated convolutions. The stride is 1, 2 or 4.
        heads, window: of attention in varied windows, which reads all dilations.
        branch: channels between the convolutions of the branch.
        groups: of the convolutions of the branch.
        ratio: inner width of the feed-forward part, in widths of the result.
        zero_init: start as plain windows.

    Source: vsa spec, configurations.

    Example:
        >>> cell = ReductionCell(3, 16, embed=8, dilations=(1, 2), kernel_size=7, stride=4, heads=2, window=3, branch=8)
        >>> cell(torch.randn(2, 30, 41, 3)).shape
        torch.Size([2, 8, 11, 16])
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        embed: int,
        dilations: tuple[int, ...],
        kernel_size: int,
        stride: int,
        heads: int,
        window: int,
        branch: int,
        groups: int = 1,
        ratio: float = 1.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if stride not in (1, 2, 4):
            raise ValueError(f"stride must be 1, 2 or 4, got {stride}")
        self.stride = stride
        self.dilated = nn.ModuleList(
            nn.Conv2d(
                in_dim, embed, kernel_size, stride, dilation=d, padding=-(-((kernel_size - 1) * d + 1 - stride) // 2)
            )
            for d in dilations
        )
        wide = embed * len(dilations)
        self.position = nn.Conv2d(wide, wide, POSITION, padding=POSITION // 2, groups=wide)
        self.norm1 = nn.LayerNorm(wide)
        self.mixer = VSAMixer(
            wide, heads, window, out_dim=dim, hide_padding=False, offset_divisor="whole", scale_by_input=True,
            zero_init=zero_init,
        )  # fmt: skip
        halvings = (stride >= 2, stride == 4, False)
        first, second, third = (1 + half for half in halvings)
        self.conv_branch = ConvBranch((in_dim, branch, branch, dim), groups, (first, second, third))
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, int(dim * ratio))

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        x = fill(x, (self.stride, self.stride))
        maps = x.permute(0, 3, 1, 2)
        p = F.gelu(torch.cat([conv(maps) for conv in self.dilated.children()], dim=1))
        p = (p + self.position(p)).permute(0, 2, 3, 1)
        y = self.mixer(self.norm1(p)) + self.conv_branch(x)
        return y + self.feed_forward(self.norm2(y))


@entry("reduction")
@dataclass(frozen=True)
class ReductionSpec:
    """`ReductionCell`."""

    kind: ClassVar[str]
    embed: int = 64
    dilations: tuple[int, ...] = (1, 2)
    kernel_size: int = 3
    stride: int = 2
    heads: int = 2
    window: int = 7
    branch: int = 64
    groups: int = 1
    ratio: float = 1.0
    zero_init: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))

    @property
    def middle(self) -> float:
        return (self.kernel_size - 1) / 2 + (self.stride - self.kernel_size) // 2

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return ReductionCell(in_dim, dim, **asdict(self))
