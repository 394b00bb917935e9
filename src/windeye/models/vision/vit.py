"""Vision transformers: one map of patches all the way, and a class token beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windeye.models.registry import register
from windeye.models.vision.backbone import FeatureInfo
from windeye.models.vision.block import Block, StageSpec
from windeye.models.vision.entries import ConvSpec
from windeye.models.vision.groups import parameter_groups
from windeye.models.vision.names import both
from windeye.models.weights import Rule, Shape, WeightMap
from windeye.nn.mixers import FullSpec
from windeye.tokens import always, waves

Positions = Literal["waves", "table"]
INIT_STD = 0.02


@dataclass(frozen=True)
class ViTConfig:
    """What a `VisionTransformer` is.

    Example:
        >>> config = ViTConfig(dim=32, depth=2, heads=4, patch=8, img_size=(48, 48))
        >>> config.grid, ViTConfig.from_dict(config.to_dict()) == config
        ((6, 6), True)
    """

    dim: int
    depth: int
    heads: int
    patch: int = 16
    """Pixels along each side of a patch."""
    in_chans: int = 3
    num_classes: int = 1000
    """Zero leaves the head out."""
    ratio: float = 4.0
    """Inner width of the feed-forward parts, in widths of the model."""
    class_token: bool = True
    """Without one the head reads the mean over patches."""
    positions: Positions = "waves"
    """Sines and cosines, which no weight belongs to, or a learned table, which is interpolated for other sizes."""
    drop_path: float = 0.0
    """Rate of the last block; it grows linearly from zero at the first."""
    norm_eps: float = 1e-6
    img_size: tuple[int, int] = (224, 224)
    """Height and width that a table of positions is made for; images of any other will do, too."""

    def __post_init__(self) -> None:
        if self.positions not in get_args(Positions):
            raise ValueError(f"positions must be one of {', '.join(get_args(Positions))}, got {self.positions!r}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of ``img_size``."""
        return -(-self.img_size[0] // self.patch), -(-self.img_size[1] // self.patch)

    def stage(self) -> StageSpec:
        """The blocks, as a stage."""
        entry = ConvSpec(self.patch, self.patch, norm="none")
        return StageSpec(self.dim, self.heads, entry, (FullSpec(),) * self.depth, self.ratio, norm_eps=self.norm_eps)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings | {"img_size": tuple(settings["img_size"])})


class VisionTransformer(nn.Module):
    """Patches and a class token through blocks of full attention. Images of any height and width, filled up with zeros
    at the right and bottom to whole patches.

    Example:
        >>> model = VisionTransformer(ViTConfig(dim=32, depth=2, heads=4, patch=8, num_classes=5))
        >>> images = torch.randn(2, 3, 48, 41)
        >>> model(images).shape, model.tokens(images).shape
        (torch.Size([2, 5]), torch.Size([2, 37, 32]))
        >>> model.tokens(images, torch.tensor([[3, 7], [0, 35]])).shape
        torch.Size([2, 3, 32])
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        stage = config.stage()
        self.entry = stage.entry.build(config.in_chans, config.dim)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.dim)) if config.class_token else None
        self.position_table: nn.Parameter | None = None
        if config.positions == "table":
            rows, columns = config.grid
            table = torch.empty(1, config.class_token + rows * columns, config.dim)
            self.position_table = nn.Parameter(table)
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(stage, mixer, rate) for mixer, rate in zip(stage.mixers, rates, strict=True))
        self.final_norm = nn.LayerNorm(config.dim, config.norm_eps)
        self.head = nn.Linear(config.dim, config.num_classes) if config.num_classes else None
        self.checkpointing = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear maps, that of patches among them, start uniform as of Glorot without bias, tokens and tables as
        normals of std 0.02."""
        reset_linear(self)
        with torch.no_grad():
            for module in self.entry.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight.flatten(1))  # a view: a patch is one vector
            for parameter in (self.class_token, self.position_table):
                if parameter is not None:
                    parameter.normal_(std=INIT_STD)
            if self.head is not None:
                nn.init.trunc_normal_(self.head.weight, std=INIT_STD)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay."""
        return {name for name in ("class_token", "position_table") if getattr(self, name) is not None}

    def grid_of(self, images: Float[Tensor, "batch in_chans height width"]) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        if images.dim() != 4 or images.shape[1] != self.config.in_chans:
            raise ValueError(
                f"images must be [batch, in_chans {self.config.in_chans}, height, width], got {tuple(images.shape)}"
            )
        return -(-images.shape[2] // self.config.patch), -(-images.shape[3] // self.config.patch)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "patches dim"]:
        """What is added to the patches of a grid, row by row."""
        weight = self.final_norm.weight
        if self.position_table is None:
            return waves(*grid, self.config.dim, like=weight).flatten(0, 1)
        table = self.position_table[0, int(self.config.class_token) :]
        return _interpolated(table, self.config.grid, grid)

    def tokens(
        self, images: Float[Tensor, "batch in_chans height width"], visible: Int64[Tensor, "batch seen"] | None = None
    ) -> Float[Tensor, "batch n dim"]:
        """What the last block made of the class token, if there is one, and of the patches row by row.

        Args:
            images: of any size.
            visible: numbers of the patches that are looked at, in the order of the result; None is all. The others
                take no part: nothing depends on them.

        Raises:
            ValueError: wrong number of axes or channels, or ``visible`` names no patch of the image.
        """
        grid = self.grid_of(images)
        x = self.entry(images.permute(0, 2, 3, 1)).flatten(1, 2) + self.positions(grid)
        if visible is not None:
            x = chosen(x, visible, grid)
        if self.class_token is not None:
            at = 0.0 if self.position_table is None else self.position_table[:, :1]
            x = torch.cat([(self.class_token + at).expand(len(x), -1, -1), x], dim=1)
        x = x[:, None]
        for block in self.blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x[:, 0]

    def forward_features(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch n dim"]:
        """`tokens` behind the final norm."""
        return self.final_norm(self.tokens(images))

    def forward_head(self, features: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch classes"]:
        """Logits from the class token, or from the mean over patches; without a head that token itself."""
        pooled = features[:, 0] if self.class_token is not None else features.mean(dim=1)
        return pooled if self.head is None else self.head(pooled)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the classes."""
        return self.forward_head(self.forward_features(images))

    def features(self, images: Float[Tensor, "batch in_chans height width"]) -> list[Float[Tensor, "batch dim h w"]]:
        """The map of patches after the last block, as the one stage that there is."""
        patches = self.tokens(images)[:, int(self.config.class_token) :]
        return [torch.unflatten(patches, 1, self.grid_of(images)).permute(0, 3, 1, 2)]

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """Channels, reduction, module and place of the feature map."""
        return [FeatureInfo(self.config.dim, self.config.patch, "blocks", (self.config.patch - 1) / 2)]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training keeps only what goes into each block, and computes blocks again in the backward pass."""
        self.checkpointing = enable

    def reset_head(self, num_classes: int) -> None:
        """A fresh head for so many classes; zero takes the head away."""
        weight = self.final_norm.weight
        self.head = None
        if num_classes:
            self.head = nn.Linear(self.config.dim, num_classes, device=weight.device, dtype=weight.dtype)
            nn.init.trunc_normal_(self.head.weight, std=INIT_STD)
            nn.init.zeros_(self.head.bias)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: 0 for patches, positions and class token, each block is one more, and the end is one
        deeper than the last block."""
        part, *rest = name.split(".")
        if part in ("entry", "class_token", "position_table"):
            return 0
        return int(rest[0]) + 1 if part == "blocks" else self.config.depth + 1

    def parameter_groups(self, rate: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Groups for an optimizer, as those of `windeye.models.vision.HierarchicalBackbone`.

        Example:
            >>> groups = vit(16, 2, 2, patch=4).parameter_groups(0.1, 0.05, layer_decay=0.5)
            >>> [(g["lr"], g["weight_decay"]) for g in groups[-2:]]
            [(0.1, 0.0), (0.1, 0.05)]
        """
        return parameter_groups(self, self, rate, weight_decay, layer_decay)


def reset_linear(model: nn.Module) -> None:
    """Linear maps start uniform as of Glorot, without bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def chosen(
    x: Float[Tensor, "batch patches dim"], visible: Int64[Tensor, "batch seen"], grid: tuple[int, int]
) -> Float[Tensor, "batch seen dim"]:
    """The patches of these numbers.

    Raises:
        ValueError: another batch, or no patch of such a number.
    """
    if visible.dim() != 2 or len(visible) != len(x):
        raise ValueError(f"visible must be [batch {len(x)}, seen], got {tuple(visible.shape)}")
    patches = grid[0] * grid[1]
    if visible.numel() and not 0 <= int(visible.min()) <= int(visible.max()) < patches:
        raise ValueError(
            f"visible must name patches of a map of {grid[0]} x {grid[1]}, from 0 to {patches - 1}, "
            f"got {int(visible.min())} to {int(visible.max())}"
        )
    return x.gather(1, visible[..., None].expand(-1, -1, x.shape[-1]))


def _interpolated(
    table: Float[Tensor, "patches dim"], grid: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "wanted dim"]:
    """The table for another grid, bicubic."""
    if all(always(old == new) for old, new in zip(grid, wanted, strict=True)):
        return table
    square = torch.unflatten(table, 0, grid).permute(2, 0, 1)[None]
    return F.interpolate(square, wanted, mode="bicubic", align_corners=False)[0].flatten(1).T


def _resized(table: Tensor, shape: Shape) -> Tensor:
    """A table of square maps for another square map; a class token keeps its row."""
    rows = table.shape[1], shape[1]
    for first in (1, 0):
        old, new = (isqrt(count - first) for count in rows)
        if (old**2 + first, new**2 + first) == rows and table.shape[2] == shape[2]:
            patches = _interpolated(table[0, first:], (old, old), (new, new))
            return torch.cat([table[0, :first], patches])[None]
    raise ValueError(
        f"pos_embed can only be interpolated between square maps of equal width, got {tuple(table.shape)} for {shape}"
    )


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    stem = checkpoint["patch_embed.proj.weight"]
    settings: dict[str, Any] = {
        "patch": stem.shape[2],
        "in_chans": stem.shape[1],
        "num_classes": len(checkpoint["head.weight"]) if "head.weight" in checkpoint else 0,
        "class_token": "cls_token" in checkpoint,
        "positions": "table" if "pos_embed" in checkpoint else "waves",
    }
    if "pos_embed" in checkpoint:
        side = isqrt(checkpoint["pos_embed"].shape[1] - settings["class_token"]) * stem.shape[2]
        settings["img_size"] = (side, side)
    return settings


BLOCK = "blocks.{block}"
WEIGHTS = WeightMap(
    "ViT",
    both({
        "entry.conv": "patch_embed.proj",
        f"{BLOCK}.norm1": f"{BLOCK}.norm1",
        f"{BLOCK}.mixer.qkv": f"{BLOCK}.attn.qkv",
        f"{BLOCK}.mixer.proj": f"{BLOCK}.attn.proj",
        f"{BLOCK}.norm2": f"{BLOCK}.norm2",
        f"{BLOCK}.feed_forward.fc1": f"{BLOCK}.mlp.fc1",
        f"{BLOCK}.feed_forward.fc2": f"{BLOCK}.mlp.fc2",
        "final_norm": "norm",
        "head": "head",
    }) | {
        "class_token": "cls_token",
        "position_table": Rule(("pos_embed",), lambda parts, _: parts[0], lambda table: (table,), _resized),
    },
    dropped=r"mask_token|decoder.*",
    signature=r"blocks\.0\.attn\.qkv\.weight",
    settings=_settings,
)  # fmt: skip
"""Names of the files of ViT, DeiT, DINO and MAE. The decoder of a masked autoencoder is no part of the model."""


def vit(dim: int, depth: int, heads: int, **settings: Any) -> VisionTransformer:
    """A vision transformer; see `ViTConfig` for its settings."""
    return VisionTransformer(ViTConfig(dim, depth, heads, **settings))


register("vit_micro", vit, WEIGHTS, dim=128, depth=4, heads=4, patch=6, img_size=(48, 48), num_classes=10)
register("vit_s", vit, WEIGHTS, dim=384, depth=12, heads=6, positions="table")
register("vit_b", vit, WEIGHTS, dim=768, depth=12, heads=12, positions="table")
register("vit_l", vit, WEIGHTS, dim=1024, depth=24, heads=16, positions="table")
register("vit_h", vit, WEIGHTS, dim=1280, depth=32, heads=16, patch=14, positions="table")
