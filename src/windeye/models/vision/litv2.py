"""LITv2: no attention where maps are large, HiLo where they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.deformable import DeformableSpec
from windeye.models.vision.entries import ConvSpec
from windeye.models.vision.names import BLOCK, both, classes_and_channels, downsamplers
from windeye.models.weights import WeightMap
from windeye.nn.mixers import HiLoSpec

LAYER = "layers.{stage}.blocks.{block}"
HEAD_DIM = 32
ALPHAS = (0.9, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Shares of low heads of the released models, the usual one first."""


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    """The share of low heads is the width of their queries; files of detectors have no head but norms of their own."""
    queries = checkpoint.get("layers.2.blocks.0.attn.l_q.weight")
    dim = checkpoint["layers.2.blocks.0.norm2.weight"].shape[0]
    low, heads = (0 if queries is None else queries.shape[0] // HEAD_DIM), dim // HEAD_DIM
    settings = classes_and_channels(checkpoint, "patch_embed.proj.weight") | {"dense": "norm3.weight" in checkpoint}
    fitting = [alpha for alpha in ALPHAS if int(heads * alpha) == low]
    return settings | ({"alpha": fitting[0]} if fitting else {})


WEIGHTS = WeightMap(
    "LITv2",
    both({
        "entries.0.conv": "patch_embed.proj",
        "entries.0.norm": "patch_embed.norm",
        f"{BLOCK}.norm1": f"{LAYER}.norm1",
        f"{BLOCK}.mixer.hi_qkv": f"{LAYER}.attn.h_qkv",
        f"{BLOCK}.mixer.hi_proj": f"{LAYER}.attn.h_proj",
        f"{BLOCK}.mixer.lo_q": f"{LAYER}.attn.l_q",
        f"{BLOCK}.mixer.lo_kv": f"{LAYER}.attn.l_kv",
        f"{BLOCK}.mixer.lo_proj": f"{LAYER}.attn.l_proj",
        f"{BLOCK}.norm2": f"{LAYER}.norm2",
        f"{BLOCK}.feed_forward.fc1": f"{LAYER}.mlp.fc1",
        f"{BLOCK}.feed_forward.depthwise": f"{LAYER}.mlp.dwconv.dwconv",
        f"{BLOCK}.feed_forward.fc2": f"{LAYER}.mlp.fc2",
        "feature_norms.{stage}": "norm{stage}",
        "final_norm": "norm",
        "head": "head",
    })
    | downsamplers(
        "layers.{}.downsample",
        both({"conv": "dconv", "offset": "dconv.conv_offset", "norm": "norm_layer"})
        | {f"norm.{part}": f"norm_layer.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")},
    ),
    signature=r"layers\.0\.downsample\.dconv\.conv_offset\.weight",
    settings=_settings,
)  # fmt: skip
"""Names of the released files."""


def litv2(
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    windows: Sequence[int | None] = (None, None, 2, 1),
    alpha: float = 0.9,
    dense: bool = False,
    ratio: float = 4.0,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """LITv2 of any size: feed-forward parts that convolve, deformable downsampling, no position encoding.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths, heads: of each stage.
        windows: sides of HiLo's windows in each stage. None is blocks without attention, 1 is full attention. No weight
            depends on it: 4 instead of 2 saves time on large maps.
        alpha: share of heads that attend to means; whole heads only, the rest is cut off.
        dense: the form of detectors: a norm for each feature map but the first, neither final norm nor head; odd maps
            lose their last row or column between stages.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width of the published model's images.

    Source: hilo spec, configurations.

    Example:
        >>> sum(p.numel() for p in litv2(96, (2, 2, 6, 2), (3, 6, 12, 24)).parameters())
        27844000
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    stages = []
    for index, (depth, count, window) in enumerate(zip(depths, heads, windows, strict=True)):
        mixer = None if window is None else HiLoSpec(window, alpha, pad_input=True)
        entry = DeformableSpec(drop_rim=dense) if index else ConvSpec()
        stages.append(StageSpec(dim * 2**index, count, entry, (mixer,) * depth, ratio=ratio, depthwise=True))
    return HierarchicalBackbone(
        BackboneConfig(
            tuple(stages), in_chans, 0 if dense else num_classes, drop_path=drop_path, img_size=size,
            final_norm="none" if dense else "layer", feature_norms=tuple(range(1, len(stages))) if dense else (),
        )
    )  # fmt: skip


register("litv2_s", litv2, WEIGHTS, dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path=0.2)
register("litv2_m", litv2, WEIGHTS, dim=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.3)
register("litv2_b", litv2, WEIGHTS, dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.5)
