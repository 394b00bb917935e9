"""A hierarchical vision backbone made of any mixers of maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windeye.models.vision.block import Block, StageSpec
from windeye.models.vision.groups import parameter_groups
from windeye.nn.norms import MapNorm, map_norm_of

INIT_STD = 0.02


@dataclass(frozen=True)
class BackboneConfig:
    """What a `HierarchicalBackbone` is.

    Example:
        >>> from windeye.models.vision import swin
        >>> config = swin(16, (1, 1), (2, 2), num_classes=5).config
        >>> BackboneConfig.from_dict(config.to_dict()) == config
        True
    """

    stages: tuple[StageSpec, ...]
    in_chans: int = 3
    num_classes: int = 1000
    """Zero leaves the head out."""
    drop_path: float = 0.0
    """Rate of the last block; it grows linearly from zero at the first."""
    final_norm: MapNorm = "layer"
    final_norm_eps: float = 1e-5
    feature_norms: tuple[int, ...] = ()
    """Stages whose feature maps go through a layer norm of their own, as backbones of detectors do."""
    img_size: tuple[int, int] = (224, 224)
    """Height and width that the published model was made for; any other will do, too."""
    init_std: float | None = INIT_STD
    """Of the truncated normals that linear maps start from. None starts them as torch does, between -1 and 1 over the
    root of their inputs: with the published 0.02, blocks of a width far below a hundred pass on next to nothing at
    first, and short trainings end before they learn."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return settings | {"stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        settings = settings | {"stages": tuple(StageSpec.from_dict(stage) for stage in settings["stages"])}
        return cls(**settings | {name: tuple(settings[name]) for name in ("feature_norms", "img_size")})


@dataclass(frozen=True)
class FeatureInfo:
    """What a stage's feature map is."""

    channels: int
    reduction: int
    """How many pixels of the image a token is wide."""
    module: str
    middle: float
    """The middle of what the first token sees of the image, in pixels, the first of which lies at 0: half a token in
    where tokens stand side by side, less where they overlap."""


class HierarchicalBackbone(nn.Module):
    """Stages of blocks on smaller and smaller maps, then norm, mean and head. Images of any height and width.

    Every stage begins with its entry, a stem or a downsampler, so that the feature map of a stage is what its blocks
    made. Inside, maps are channels last.

    Example:
        >>> import torch
        >>> from windeye.models.vision import swin
        >>> model = swin(16, (1, 1), (2, 2), window=4, num_classes=5)
        >>> images = torch.randn(2, 3, 50, 61)
        >>> model(images).shape, [tuple(f.shape) for f in model.features(images)]
        (torch.Size([2, 5]), [(2, 16, 13, 16), (2, 32, 7, 8)])
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if not config.stages:
            raise ValueError("stages must name at least one stage")
        self.config = config
        blocks = sum(len(stage.mixers) for stage in config.stages)
        rates = iter(torch.linspace(0, config.drop_path, blocks, device="cpu").tolist())
        self.entries = nn.ModuleList()
        self.stages = nn.ModuleList()
        width = config.in_chans
        for stage in config.stages:
            self.entries.append(stage.entry.build(width, stage.dim))
            self.stages.append(nn.ModuleList(Block(stage, mixer, next(rates)) for mixer in stage.mixers))
            width = stage.dim
        self.final_norm = map_norm_of(config.final_norm, width, config.final_norm_eps)
        self.feature_norms = nn.ModuleDict(
            {
                str(index): nn.LayerNorm(config.stages[index].dim, config.stages[index].norm_eps)
                for index in config.feature_norms
            }
        )
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else None
        self.checkpointing = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear maps start as the configuration says, without bias; the rest as its modules say."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                self._start(module)

    def maps(self, images: Float[Tensor, "batch in_chans height width"]) -> Iterator[Tensor]:
        """The map after each stage, channels last.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        if images.dim() != 4 or images.shape[1] != self.config.in_chans:
            raise ValueError(
                f"images must be [batch, in_chans {self.config.in_chans}, height, width], got {tuple(images.shape)}"
            )
        x = images.permute(0, 2, 3, 1)
        for entry, blocks in zip(self.entries, self.stages, strict=True):
            x = entry(x)
            for block in blocks.children():
                if self.checkpointing and self.training and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            yield x

    def forward_features(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch h w dim"]:
        """The last map behind the final norm, channels last."""
        *_, last = self.maps(images)
        return self.final_norm(last)

    def forward_head(self, features: Float[Tensor, "batch h w dim"]) -> Float[Tensor, "batch classes"]:
        """Logits, or the mean token of a model without head."""
        pooled = features.mean(dim=(1, 2))
        return pooled if self.head is None else self.head(pooled)

    def forward(self, images: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the classes."""
        return self.forward_head(self.forward_features(images))

    def features(
        self, images: Float[Tensor, "batch in_chans height width"], out: Sequence[int] | None = None
    ) -> list[Float[Tensor, "batch dim h w"]]:
        """Feature maps of the stages ``out`` (default: all; negative counts from the end), each [batch, dim, h, w].

        They are the blocks' results; a stage of ``feature_norms`` is normalised.

        Raises:
            ValueError: there is no such stage.
        """
        count = len(self.stages)
        wanted = list(range(count)) if out is None else [index + count * (index < 0) for index in out]
        if any(not 0 <= index < count for index in wanted):
            raise ValueError(f"out must name stages in [-{count}, {count}), got {list(out or ())}")
        found: dict[int, Tensor] = {}
        for index, x in enumerate(self.maps(images)):
            if index in wanted:
                named = str(index)
                found[index] = (self.feature_norms[named](x) if named in self.feature_norms else x).permute(0, 3, 1, 2)
            if index == max(wanted, default=-1):
                break
        return [found[index] for index in wanted]

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """Channels, reduction, module and place of each stage's feature map."""
        infos: list[FeatureInfo] = []
        reduction, middle = 1, 0.0
        for index, stage in enumerate(self.config.stages):
            middle += reduction * stage.entry.middle
            reduction *= stage.entry.stride
            infos.append(FeatureInfo(stage.dim, reduction, f"stages.{index}", middle))
        return infos

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training keeps only what goes into each block, and computes blocks again in the backward pass."""
        self.checkpointing = enable

    def reset_head(self, num_classes: int) -> None:
        """A fresh head for so many classes; zero takes the head away."""
        dim = self.config.stages[-1].dim
        weight = next(self.parameters())
        self.head = nn.Linear(dim, num_classes, device=weight.device, dtype=weight.dtype) if num_classes else None
        if self.head is not None:
            self._start(self.head)

    def _start(self, linear: nn.Linear) -> None:
        if self.config.init_std is None:
            nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5))
        else:
            nn.init.trunc_normal_(linear.weight, std=self.config.init_std)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: 0 is the first entry, each block is one more; entries share the depth of the block
        behind them, and the end is one deeper than the last block."""
        depths = [len(stage.mixers) for stage in self.config.stages]
        part, *rest = name.split(".")
        if part == "entries":
            stage = int(rest[0])
            return 0 if stage == 0 else sum(depths[:stage]) + 1
        if part == "stages":
            return sum(depths[: int(rest[0])]) + int(rest[1]) + 1
        return sum(depths) + 1

    def parameter_groups(self, rate: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Groups for an optimizer: ``rate`` shrinks by ``layer_decay`` per layer away from the head, and by what modules
        say in ``rate_factors``; vectors, and what modules say in ``no_weight_decay``, are not decayed.

        Example:
            >>> from windeye.models.vision import swin
            >>> model = swin(16, (1, 1), (2, 2), num_classes=5)
            >>> groups = model.parameter_groups(0.1, 0.05, layer_decay=0.5)
            >>> [(g["lr"], g["weight_decay"]) for g in groups]
            [(0.0125, 0.0), (0.0125, 0.05), (0.025, 0.0), (0.025, 0.05), (0.05, 0.0), (0.05, 0.05), (0.1, 0.0), (0.1, 0.05)]
        """  # noqa: E501
        return parameter_groups(self, self, rate, weight_decay, layer_decay)
