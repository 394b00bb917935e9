"""One block of a stage, and what a configuration says of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.models.vision.conv_branch import ConvBranch
from windeye.models.vision.entries import ENTRIES, EntrySpec
from windeye.nn.drop_path import DropPath
from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixers import MIXERS, TokenMixerSpec

PositionScope = Literal["trunk", "branch"]


@dataclass(frozen=True)
class StageSpec:
    """A stage: an entry, then one block per mixer.

    Example:
        >>> from windeye.nn.mixers import WindowSpec
        >>> from windeye.models.vision.entries import ConvSpec
        >>> stage = StageSpec(96, 3, ConvSpec(), (WindowSpec(), WindowSpec(shift=3)))
        >>> StageSpec.from_dict(stage.to_dict()) == stage
        True
    """

    dim: int
    heads: int
    entry: EntrySpec
    mixers: tuple[TokenMixerSpec | None, ...]
    """One per block; None leaves a block without: its feed-forward part, behind a position encoding of the trunk."""
    ratio: float = 4.0
    """Inner width of the feed-forward parts, in widths of the stage."""
    depthwise: bool = False
    """Whether the feed-forward parts convolve."""
    position: int | None = None
    """Side of a depthwise convolution that is added to the tokens before each mixer: conditional position encoding."""
    position_scope: PositionScope = "trunk"
    """Whether the trunk keeps what the position encoding added, or only the mixer sees it."""
    conv_groups: int | None = None
    """Groups of three convolutions that run beside each mixer, on what comes into the block; None is no such branch."""
    layer_scale: float | None = None
    """Where learned factors of both branches start; None is none."""
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.position_scope not in get_args(PositionScope):
            known = ", ".join(get_args(PositionScope))
            raise ValueError(f"position_scope must be one of {known}, got {self.position_scope!r}")
        if self.position is not None and self.position % 2 == 0:
            raise ValueError(f"position must be odd, got {self.position}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        mixers = [None if spec is None else MIXERS.to_dict(spec) for spec in self.mixers]
        return settings | {"entry": ENTRIES.to_dict(self.entry), "mixers": mixers}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        mixers = tuple(None if spec is None else MIXERS.from_dict(spec) for spec in settings["mixers"])
        return cls(**settings | {"entry": ENTRIES.from_dict(settings["entry"]), "mixers": mixers})


class Block(nn.Module):
    """``x + position(x)``, then ``x + mixer(norm(x)) + conv_branch(x)``, then ``x + feed_forward(norm(x))``; parts may
    be missing, and a mixer that normalises its branches itself reads ``x``."""

    def __init__(self, stage: StageSpec, mixer: TokenMixerSpec | None, drop_path: float) -> None:
        super().__init__()
        dim = stage.dim
        self.position_scope = stage.position_scope
        self.position: nn.Module | None = None
        self.norm1: nn.Module | None = None
        self.mixer: nn.Module | None = None
        self.conv_branch: nn.Module | None = None
        if stage.position is not None and (mixer is not None or stage.position_scope == "trunk"):
            self.position = nn.Conv2d(dim, dim, stage.position, padding=stage.position // 2, groups=dim)
        if mixer is not None:
            built = mixer.build(dim, stage.heads)
            self.norm1 = None if built.normalizes else nn.LayerNorm(dim, stage.norm_eps)
            self.mixer = built
            if stage.conv_groups is not None:
                self.conv_branch = ConvBranch((dim, 4 * dim, dim, dim), stage.conv_groups)
        self.norm2 = nn.LayerNorm(dim, stage.norm_eps)
        self.feed_forward = FeedForward(dim, int(dim * stage.ratio), depthwise=stage.depthwise)
        scaled = stage.layer_scale is not None
        self.scale1 = nn.Parameter(torch.empty(dim)) if scaled and mixer is not None else None
        self.scale2 = nn.Parameter(torch.empty(dim)) if scaled else None
        for scale in (self.scale1, self.scale2):
            if scale is not None and stage.layer_scale is not None:
                nn.init.constant_(scale, stage.layer_scale)
        self.drop_path = DropPath(drop_path)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: the factors of both branches."""
        return {name for name in ("scale1", "scale2") if getattr(self, name) is not None}

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        seen = x
        if self.position is not None:
            seen = x + self.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = seen if self.position_scope == "trunk" else x
        if self.mixer is not None:
            normed = seen if self.norm1 is None else self.norm1(seen)
            mixed = x + self.drop_path(_scaled(self.mixer(normed), self.scale1))
            x = mixed if self.conv_branch is None else mixed + self.drop_path(self.conv_branch(x))
        return x + self.drop_path(_scaled(self.feed_forward(self.norm2(x)), self.scale2))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale
