"""Swin Transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec, MergeSpec
from windeye.models.vision.names import BLOCK, both, classes_and_channels, downsamplers, position_index, swin_table
from windeye.models.weights import WeightMap
from windeye.nn.mixers import WindowMixer, WindowSpec
from windeye.tokens import partition

LAYER = "layers.{stage}.blocks.{block}"


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    """Windows that divide the last map of the image are those of the published models."""
    tables = [t.shape[0] for name, t in checkpoint.items() if name.endswith("relative_position_bias_table")]
    window = (isqrt(max(tables)) + 1) // 2
    return {"window": window, "img_size": 32 * window} | classes_and_channels(checkpoint, "patch_embed.proj.weight")


def _buffers(model: HierarchicalBackbone) -> dict[str, Tensor]:
    """Position indices, and the masks of shifted windows at the size that the model was made for."""
    height, width = model.config.img_size
    out: dict[str, Tensor] = {}
    reduction = 1
    for stage, (spec, blocks) in enumerate(zip(model.config.stages, model.stages, strict=True)):
        reduction *= spec.entry.stride
        grid = (height // reduction, width // reduction)
        for number, block in enumerate(blocks.children()):
            mixer = block.mixer
            if not isinstance(mixer, WindowMixer):
                continue
            name = LAYER.format(stage=stage, block=number)
            out[f"{name}.attn.relative_position_index"] = position_index(mixer.window)
            pattern = mixer.pattern(*grid)
            if pattern.shift not in (0, (0, 0)):
                out[f"{name}.attn_mask"] = _mask(grid, mixer.window, mixer.shift)
    return out


def _mask(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """-100 between tokens of a rolled map that are no neighbours: the nine regions."""
    bands = [torch.arange(side) for side in grid]
    regions = [
        (at >= side - size).long() + (at >= side - step).long()
        for at, side, size, step in zip(bands, grid, window, shift, strict=True)
    ]
    region = partition((3 * regions[0][:, None] + regions[1][None])[None], window)[0].flatten(1)
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)


WEIGHTS = WeightMap(
    "Swin",
    both({
        "entries.0.conv": "patch_embed.proj",
        "entries.0.norm": "patch_embed.norm",
        f"{BLOCK}.norm1": f"{LAYER}.norm1",
        f"{BLOCK}.mixer.qkv": f"{LAYER}.attn.qkv",
        f"{BLOCK}.mixer.proj": f"{LAYER}.attn.proj",
        f"{BLOCK}.norm2": f"{LAYER}.norm2",
        f"{BLOCK}.feed_forward.fc1": f"{LAYER}.mlp.fc1",
        f"{BLOCK}.feed_forward.fc2": f"{LAYER}.mlp.fc2",
        "final_norm": "norm",
        "head": "head",
    })
    | downsamplers(
        "layers.{}.downsample",
        {"norm.weight": "norm.weight", "norm.bias": "norm.bias", "proj.weight": "reduction.weight"},
    )
    | {f"{BLOCK}.mixer.bias_table": swin_table(f"{LAYER}.attn.relative_position_bias_table")},
    dropped=r".*(relative_position_index|attn_mask)",
    regenerated=_buffers,
    signature=r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table",
    settings=_settings,
)  # fmt: skip
"""Names of the released files."""


def swin(
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    window: int = 7,
    ratio: float = 4.0,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """Swin of any size: windows at rest and shifted in turn, patches of 4 x 4 pixels.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths, heads: of each stage.
        window: side of a window. Where the map of ``img_size`` is smaller, the window and its table are.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width that the tables are made for.

    Source: vision notes, Swin repository.

    Example:
        >>> sum(p.numel() for p in swin(96, (2, 2, 6, 2), (3, 6, 12, 24)).parameters())
        28288354
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    stages = []
    for index, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        side = min(window, -(-min(size) // (4 * 2**index)))
        mixers = tuple(WindowSpec(side, shift=side // 2 * (block % 2), pad_input=True) for block in range(depth))
        stages.append(StageSpec(dim * 2**index, count, MergeSpec() if index else ConvSpec(), mixers, ratio=ratio))
    return HierarchicalBackbone(
        BackboneConfig(tuple(stages), in_chans, num_classes, drop_path=drop_path, img_size=size)
    )


register("swin_t", swin, WEIGHTS, dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path=0.2)
register("swin_s", swin, WEIGHTS, dim=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.3)
register("swin_b", swin, WEIGHTS, dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.5)
register("swin_l", swin, WEIGHTS, dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), drop_path=0.2)
