"""BiFormer: regions that choose regions on large maps, full attention on the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec, EntrySpec, TwoConvSpec
from windeye.models.vision.names import BLOCK, STAGES, both, classes_and_channels, pointwise
from windeye.models.weights import Rule, WeightMap
from windeye.nn.mixers import BiLevelRoutingSpec, FullSpec, TokenMixerSpec
from windeye.nn.mixers.full import LocalSource
from windeye.nn.mixers.routing import RoutingPadding

Layout = Literal["overlapping", "patches"]
FULL_STAGE = STAGES - 1
"""The stage of full attention has other names in official files."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NORM_EPS = 1e-6
FULL_HEADS = 8
"""Heads of full attention, whatever its width: the default of the official layer."""


def _batch_norms(names: Mapping[str, str]) -> dict[str, str]:
    return both(names) | {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in names.items() for part in STATISTICS}


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    """Files of detectors have no head but norms of their own."""
    settings = classes_and_channels(checkpoint, "downsample_layers.0.0.weight")
    settings |= {"dense": "extra_norms.0.weight" in checkpoint}
    return settings | ({"layer_scale": 1e-5} if any(name.endswith(".gamma1") for name in checkpoint) else {})


def _block(theirs: str, second: int) -> dict[str, str]:
    """Parts of every block but the attention of the routed stages."""
    names = {f"{BLOCK}.scale{branch}": f"{theirs}.gamma{branch}" for branch in (1, 2)}
    parts = {
        "position": "pos_embed",
        "norm1": "norm1",
        "mixer.local": "attn.lepe",
        "norm2": "norm2",
        "feed_forward.fc1": "mlp.0",
        "feed_forward.fc2": f"mlp.{second}",
    }
    return names | both({f"{BLOCK}.{ours}": f"{theirs}.{name}" for ours, name in parts.items()})


def _attention(theirs: str, qkv: str, proj: str) -> dict[str, str]:
    """The stage of full attention, then those that route."""
    names: dict[str, str] = {}
    for stage in (FULL_STAGE, "{stage}"):
        block, official = f"stages.{stage}.{{block}}", theirs.replace("{stage}", str(stage))
        parts = ("qkv", "proj") if stage == FULL_STAGE else (qkv, proj)
        names |= {
            f"{block}.mixer.{ours}": f"{official}.attn.{part}"
            for ours, part in zip(("qkv", "proj"), parts, strict=True)
        }
    return both(names)


def _weights(name: str, rules: Mapping[str, str | Rule], signature: str) -> WeightMap:
    ends = both({"feature_norms.{stage}": "extra_norms.{stage}", "head": "head"}) | _batch_norms({"final_norm": "norm"})
    return WeightMap(name, {**rules, **ends}, signature=signature, settings=_settings)


PATCHES = both({
    f"entries.{stage}.conv": f"downsample_layers.{stage}.{int(stage > 0)}" for stage in range(STAGES)
}) | _batch_norms({
    f"entries.{stage}.norm": f"downsample_layers.{stage}.{int(stage == 0)}" for stage in range(STAGES)
})  # fmt: skip
SWIN_BLOCK = "stages.{stage}.blocks.{block}"
LINEAR = ("mixer.qkv", "mixer.proj", "feed_forward.fc1", "feed_forward.fc2")

WEIGHTS = _weights(
    "BiFormer",
    both({"entries.0.conv1": "downsample_layers.0.0", "entries.0.conv2": "downsample_layers.0.3"})
    | _batch_norms({"entries.0.norm1": "downsample_layers.0.1", "entries.0.norm": "downsample_layers.0.4"})
    | both({"entries.{stage}.conv": "downsample_layers.{stage}.0"})
    | _batch_norms({"entries.{stage}.norm": "downsample_layers.{stage}.1"})
    | _attention(BLOCK, "qkv.qkv", "wo")
    | _block(BLOCK, 3),
    r"stages\.0\.0\.attn\.wo\.weight",
)
"""Names of the released files."""
STL_WEIGHTS = _weights(
    "BiFormer-STL",
    PATCHES | _attention(SWIN_BLOCK, "qkv.qkv", "wo") | _block(SWIN_BLOCK, 2),
    r"stages\.0\.blocks\.0\.attn\.wo\.weight",
)
"""Of the models in Swin's layout."""
STL_NCHW_WEIGHTS = _weights(
    "BiFormer-STL, channels first",
    {
        ours: pointwise(theirs) if ours.removesuffix(".weight").endswith(LINEAR) else theirs
        for ours, theirs in (
            PATCHES | _attention(SWIN_BLOCK, "qkv_linear", "output_linear") | _block(SWIN_BLOCK, 2)
        ).items()
    },
    r"stages\.0\.blocks\.0\.attn\.qkv_linear\.weight",
)
"""Of the model whose linear layers are 1 x 1 convolutions."""


def biformer(
    dim: int | Sequence[int],
    depths: Sequence[int],
    *,
    regions: int | tuple[int, int] = 7,
    keep: Sequence[int | None] = (1, 4, 16, None),
    head_dim: int = 32,
    layout: Layout = "overlapping",
    padding: RoutingPadding = "input",
    local_on: LocalSource = "input",
    dense: bool = False,
    ratio: float = 3.0,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """BiFormer of any size.

    Args:
        dim: channels of the first stage, doubled by each; or of each stage.
        depths: blocks of each stage.
        regions: regions along each side of every map. 7 suits images of 224; the published backbones of segmentation
            have 8, those of detection 16.
        keep: regions that each region keeps, in each stage; None is full attention, with eight heads, without bias of
            ``qkv``, as published.
        head_dim: channels of a head that routes.
        layout: "overlapping" is a stem of two convolutions, overlapping downsampling, and a position convolution in
            each block; "patches" is Swin's layout, without.
        padding: what is done with maps that regions do not divide, see `windeye.nn.mixers.BiLevelRoutingMixer`.
        local_on: what the convolution of full attention reads.
        dense: the form of detectors: a norm for each feature map, neither final norm nor head.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        layer_scale: where learned factors of both branches start; None is none.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width of the published model's images.

    Raises:
        ValueError: an unknown layout, or sizes that do not fit.

    Source: biformer spec, configurations.

    Example:
        >>> sum(p.numel() for p in biformer(64, (2, 2, 8, 2)).parameters())
        13142760
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    patches = layout == "patches"
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    dims = [dim * 2**index for index in range(len(depths))] if isinstance(dim, int) else dim
    stages = []
    for index, (width, depth, kept) in enumerate(zip(dims, depths, keep, strict=True)):
        mixer: TokenMixerSpec = FullSpec(5, local_on, qkv_bias=False)
        if kept is not None:
            mixer = BiLevelRoutingSpec(regions, kept, padding=padding)
        stages.append(
            StageSpec(
                width, FULL_HEADS if kept is None else width // head_dim, _entry(index, patches), (mixer,) * depth,
                ratio=ratio, position=None if patches else 3, layer_scale=layer_scale, norm_eps=NORM_EPS,
            )
        )  # fmt: skip
    return HierarchicalBackbone(
        BackboneConfig(
            tuple(stages), in_chans, 0 if dense else num_classes, drop_path=drop_path, img_size=size,
            final_norm="none" if dense else "batch", feature_norms=tuple(range(len(stages))) if dense else (),
        )
    )  # fmt: skip


def _entry(index: int, patches: bool) -> EntrySpec:
    if patches:
        return ConvSpec(2, 2, norm="batch", norm_first=True) if index else ConvSpec(norm="batch")
    return ConvSpec(3, 2, 1, norm="batch") if index else TwoConvSpec(norm="batch", norm_between=True)


register("biformer_t", biformer, WEIGHTS, dim=64, depths=(2, 2, 8, 2), drop_path=0.1)
register("biformer_s", biformer, WEIGHTS, dim=64, depths=(4, 4, 18, 4), drop_path=0.15)
register("biformer_b", biformer, WEIGHTS, dim=96, depths=(4, 4, 18, 4), drop_path=0.1)
STL = {"dim": 96, "depths": (2, 2, 6, 2), "layout": "patches", "ratio": 4.0, "drop_path": 0.1}
register("biformer_stl", biformer, STL_WEIGHTS, **STL)
register("biformer_stl_nchw", biformer, STL_NCHW_WEIGHTS, **STL, padding="projected", local_on="values")
