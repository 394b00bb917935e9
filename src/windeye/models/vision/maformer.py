"""MAFormer: multi-scale fusion on large maps, full attention on small ones. A re-design, not a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec
from windeye.models.vision.names import BLOCK, both, classes_and_channels
from windeye.models.weights import Rule, WeightMap
from windeye.nn.mixers import FullSpec, MultiScaleFusionSpec, TokenMixerSpec
from windeye.nn.mixers.down_sampling import interpolated

NORM_EPS = 1e-6
FUSED = 2
"""Stages of fusion; behind them maps are small."""
STEM = ConvSpec(7, 4, 2, norm_eps=NORM_EPS)
DOWN = ConvSpec(3, 2, 1, norm_eps=NORM_EPS)
TOKENS = f"{BLOCK}.mixer.tokens"


def _bound(name: str) -> Rule:
    """Weights over positions, which other sizes of images interpolate."""
    return Rule((name,), lambda parts, _: parts[0], lambda tensor: (tensor,), interpolated)


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    side = checkpoint["stages.0.0.mixer.tokens.weight"].shape[-2:]
    return {"img_size": (4 * side[0], 4 * side[1])} | classes_and_channels(checkpoint, "entries.0.conv.weight")


_PARTS = (
    "norm1", "norm2", "feed_forward.fc1", "feed_forward.fc2", "mixer.qkv", "mixer.proj", "mixer.norm1", "mixer.norm2",
    "mixer.window.qkv", "mixer.window.proj", "mixer.feed_forward.fc1", "mixer.feed_forward.fc2", "mixer.tokens.norm",
    "mixer.query", "mixer.key_value",
)  # fmt: skip
_NAMES = ("entries.{stage}.conv", "entries.{stage}.norm", "final_norm", "head", *(f"{BLOCK}.{part}" for part in _PARTS))
WEIGHTS = WeightMap(
    "MAFormer",
    both({name: name for name in _NAMES})
    | {f"{BLOCK}.mixer.window.bias_table": f"{BLOCK}.mixer.window.bias_table"}
    | {f"{TOKENS}.{kind}": _bound(f"{TOKENS}.{kind}") for kind in ("weight", "bias", "table")},
    signature=r"stages\.0\.0\.mixer\.tokens\.weight",
    settings=_settings,
    published=False,
)
"""There are no official files: the names are ours, and weights over positions may be interpolated."""


def maformer(
    dims: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    fusion: MultiScaleFusionSpec | None = None,
    ratio: float = 4.0,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """MAFormer of any size: two stages of multi-scale fusion, then full attention.

    No official code is known, nor depths, widths, stem and downsamplers: those are ours, CSWin's where it has the part.
    Drop path leaves out what a block's fusion adds together with its local branch.

    Args:
        dims, depths, heads: of each stage.
        fusion: options of the blocks of the first two stages, whose ``size`` is set for each stage. None has the
            defaults of `windeye.nn.mixers.MultiScaleFusionMixer`, which refuses images of other sizes;
            ``MultiScaleFusionSpec()`` takes images of any size.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width that the weights over positions are made for.

    Source: maformer spec.

    Example:
        >>> import torch
        >>> model = maformer((16, 32), (1, 1), (2, 4), num_classes=5, img_size=32)
        >>> model(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """
    fusion = fusion or MultiScaleFusionSpec(resize=None)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    stages = []
    for index, (dim, depth, count) in enumerate(zip(dims, depths, heads, strict=True)):
        stride = 4 * 2**index
        mixer: TokenMixerSpec = FullSpec()
        if index < FUSED:
            mixer = replace(fusion, size=(-(-height // stride), -(-width // stride)), expansion=ratio)
        entry = DOWN if index else STEM
        stages.append(StageSpec(dim, count, entry, (mixer,) * depth, ratio=ratio, norm_eps=NORM_EPS))
    return HierarchicalBackbone(
        BackboneConfig(
            tuple(stages), in_chans, num_classes, drop_path=drop_path, final_norm_eps=NORM_EPS, img_size=(height, width)
        )
    )  # fmt: skip


register("maf_micro", maformer, WEIGHTS, dims=(32, 64, 128, 256), depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), img_size=64)
register(
    "maf_s", maformer, WEIGHTS,
    dims=(64, 128, 320, 512), depths=(1, 2, 7, 2), heads=(2, 4, 10, 16), drop_path=0.1,
)  # fmt: skip
register(
    "maf_b", maformer, WEIGHTS,
    dims=(96, 192, 448, 768), depths=(1, 2, 10, 2), heads=(3, 6, 14, 24), drop_path=0.2,
)  # fmt: skip
register(
    "maf_l", maformer, WEIGHTS,
    dims=(128, 256, 640, 896), depths=(1, 2, 14, 2), heads=(4, 8, 20, 28), drop_path=0.3,
)  # fmt: skip
