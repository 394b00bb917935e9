"""How a stage is entered: stems and downsamplers are the same kind of part, channels last in and out.

A new entry registers a frozen dataclass, as mixers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.kinds import Kinds
from windeye.nn.norms import MapNorm, map_norm_of
from windeye.tokens import fill


class EntrySpec(Protocol):
    """A frozen dataclass that builds an entry; ``stride`` is how many times smaller it makes each side."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def stride(self) -> int: ...

    @property
    def middle(self) -> float:
        """The middle of what the first token sees, in pixels of what comes in, the first of which lies at 0."""
        ...

    def build(self, in_dim: int, dim: int) -> nn.Module: ...


ENTRIES: Kinds[EntrySpec] = Kinds("entry")
"""Every registered kind of entry."""

entry = ENTRIES.register
"""Registers a kind of entry under its name in configurations."""


class ConvEntry(nn.Module):
    """One convolution with a norm behind it, or in front of it. A map that does not divide by the stride is filled up
    with zeros at its right and bottom, so that no row or column is lost."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, *, norm_first: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.norm_first = norm_first

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        if self.norm_first:
            x = self.norm(x)
        x = fill(x, (self.conv.stride[0], self.conv.stride[1]))
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.norm_first else self.norm(x)


@entry("conv")
@dataclass(frozen=True)
class ConvSpec:
    """A convolution and a norm: patches (4 x 4, stride 4), overlapping patches (7 x 7, stride 4), downsamplers."""

    kind: ClassVar[str]
    kernel_size: int = 4
    stride: int = 4
    padding: int = 0
    norm: MapNorm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = False
    bias: bool = True

    @property
    def middle(self) -> float:
        return (self.kernel_size - 1) / 2 - self.padding

    def build(self, in_dim: int, dim: int) -> nn.Module:
        conv = nn.Conv2d(in_dim, dim, self.kernel_size, self.stride, self.padding, bias=self.bias)
        norm = map_norm_of(self.norm, in_dim if self.norm_first else dim, self.norm_eps)
        return ConvEntry(conv, norm, norm_first=self.norm_first)


class TwoConvEntry(nn.Module):
    """Two 3 x 3 convolutions of stride 2 by way of half the channels, with or without norm and GELU between them."""

    def __init__(self, in_dim: int, dim: int, norm: MapNorm, norm_eps: float, *, norm_between: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, dim // 2, 3, 2, 1)
        self.norm1 = map_norm_of(norm, dim // 2, norm_eps) if norm_between else None
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, 2, 1)
        self.norm = map_norm_of(norm, dim, norm_eps)

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        x = self.conv1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if self.norm1 is not None:
            x = F.gelu(self.norm1(x))
        return self.norm(self.conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@entry("two_conv")
@dataclass(frozen=True)
class TwoConvSpec:
    """Two convolutions of stride 2: the tokenizer of NAT, and with batch norm and ``norm_between`` that of BiFormer."""

    kind: ClassVar[str]
    norm: MapNorm = "layer"
    norm_eps: float = 1e-5
    norm_between: bool = False
    stride: ClassVar[int] = 4
    middle: ClassVar[float] = 0.0

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return TwoConvEntry(in_dim, dim, self.norm, self.norm_eps, norm_between=self.norm_between)


class Merge(nn.Module):
    """Channels of each 2 x 2 pixels side by side, norm, linear (Swin). Odd maps get zeros at their right and bottom.

    The four pixels come in the order of Swin's weights: (even row, even column), (odd, even), (even, odd), (odd, odd).
    """

    def __init__(self, in_dim: int, dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_dim, norm_eps)
        self.proj = nn.Linear(4 * in_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch height width in_dim"]) -> Float[Tensor, "batch h w dim"]:
        x = fill(x, (2, 2))
        pixels = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.proj(self.norm(torch.cat(pixels, dim=-1)))


@entry("merge")
@dataclass(frozen=True)
class MergeSpec:
    """Patch merging of Swin."""

    kind: ClassVar[str]
    norm_eps: float = 1e-5
    stride: ClassVar[int] = 2
    middle: ClassVar[float] = 0.5

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return Merge(in_dim, dim, self.norm_eps)
