"""Swin Transformers whose windows move and stretch instead of being shifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec, MergeSpec
from windeye.models.vision.names import BLOCK, both, classes_and_channels, position_index, regression_of
from windeye.models.vision.swin import LAYER
from windeye.models.vision.swin import WEIGHTS as SWIN
from windeye.models.weights import WeightMap
from windeye.nn.mixers import VSAMixer, VSASpec


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    table = checkpoint["layers.0.blocks.0.attn.relative_position_bias_table"]
    window = (isqrt(table.shape[0]) + 1) // 2
    return {"window": window} | classes_and_channels(checkpoint, "patch_embed.proj.weight")


def _buffers(model: HierarchicalBackbone) -> dict[str, Tensor]:
    return {
        f"{LAYER.format(stage=stage, block=number)}.attn.relative_position_index": position_index(block.mixer.window)
        for stage, blocks in enumerate(model.stages)
        for number, block in enumerate(blocks.children())
        if isinstance(block.mixer, VSAMixer)
    }


WEIGHTS = WeightMap(
    "Swin with varied windows",
    dict(SWIN.rules)
    | both({f"{BLOCK}.position": f"{LAYER}.pos"})
    | {
        f"{BLOCK}.mixer.regress.{kind}": regression_of(f"{LAYER}.attn", kind, split=False)
        for kind in ("weight", "bias")
    },
    dropped=r".*relative_position_index",
    regenerated=_buffers,
    signature=r"layers\.0\.blocks\.0\.attn\.transform\.2\.weight",
    settings=_settings,
)
"""Names of the official code; no weights were released."""


def vsa_swin(
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
    """Swin with varied-size windows in every block, and a convolution as large as a window for positions before it.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths, heads: of each stage.
        window: side of a window.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width of the published model's images.

    Source: vsa spec, configurations. Padded keys are seen, as in the official code.

    Example:
        >>> sum(p.numel() for p in vsa_swin(96, (2, 2, 6, 2), (3, 6, 12, 24)).parameters())
        28779274
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    stages = tuple(
        StageSpec(
            dim * 2**index, count, MergeSpec() if index else ConvSpec(), (VSASpec(window, hide_padding=False),) * depth,
            ratio=ratio, position=2 * (window // 2) + 1,
        )
        for index, (depth, count) in enumerate(zip(depths, heads, strict=True))
    )  # fmt: skip
    return HierarchicalBackbone(BackboneConfig(stages, in_chans, num_classes, drop_path=drop_path, img_size=size))


register("vsa_swin_t", vsa_swin, WEIGHTS, dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path=0.2)
register("vsa_swin_s", vsa_swin, WEIGHTS, dim=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.2)
register("vsa_swin_b", vsa_swin, WEIGHTS, dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.2)
