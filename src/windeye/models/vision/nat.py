"""NAT and DiNAT: neighbourhood attention at rest and dilated, behind convolutions; and DiNAT in Swin's layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec, EntrySpec, MergeSpec, TwoConvSpec
from windeye.models.vision.names import BLOCK, both, classes_and_channels, downsamplers, neighborhood_table
from windeye.models.weights import WeightMap
from windeye.nn.mixers import NeighborhoodSpec


def _names(level: str) -> dict[str, Any]:
    """Blocks and the end, the same in both layouts."""
    block = level + ".blocks.{block}"
    return both({
        f"{BLOCK}.norm1": f"{block}.norm1",
        f"{BLOCK}.mixer.layer.qkv": f"{block}.attn.qkv",
        f"{BLOCK}.mixer.layer.proj": f"{block}.attn.proj",
        f"{BLOCK}.norm2": f"{block}.norm2",
        f"{BLOCK}.feed_forward.fc1": f"{block}.mlp.fc1",
        f"{BLOCK}.feed_forward.fc2": f"{block}.mlp.fc2",
        "entries.0.norm": "patch_embed.norm",
        "final_norm": "norm",
        "head": "head",
    }) | {
        f"{BLOCK}.mixer.layer.rpb": neighborhood_table(f"{block}.attn.rpb"),
        f"{BLOCK}.scale1": f"{block}.gamma1",
        f"{BLOCK}.scale2": f"{block}.gamma2",
    }  # fmt: skip


def _settings(stem: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    def settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
        (table,) = {t.shape[-1] for name, t in checkpoint.items() if name.endswith(".rpb")}
        return {"kernel_size": (table + 1) // 2} | classes_and_channels(checkpoint, stem)

    return settings


NORM = {"norm.weight": "norm.weight", "norm.bias": "norm.bias"}
WEIGHTS = WeightMap(
    "NAT",
    _names("levels.{stage}")
    | both({"entries.0.conv1": "patch_embed.proj.0", "entries.0.conv2": "patch_embed.proj.1"})
    | downsamplers("levels.{}.downsample", NORM | {"conv.weight": "reduction.weight"}),
    signature=r"levels\.0\.blocks\.0\.attn\.rpb",
    settings=_settings("patch_embed.proj.0.weight"),
)
"""Names of the released files of NAT and DiNAT."""
SWIN_LAYOUT_WEIGHTS = WeightMap(
    "DiNAT_s",
    _names("layers.{stage}")
    | both({"entries.0.conv": "patch_embed.proj"})
    | downsamplers("layers.{}.downsample", NORM | {"proj.weight": "reduction.weight"}),
    signature=r"layers\.0\.blocks\.0\.attn\.rpb",
    settings=_settings("patch_embed.proj.weight"),
)
"""Names of the released files of DiNAT in Swin's layout."""
DOWN = ConvSpec(3, 2, 1, bias=False)
DEPTHS = (3, 4, 18, 5)
DILATIONS = ((1, 8, 1), (1, 4, 1, 4), (1, 2), (1,))
"""Dilations of the blocks at 224 pixels, repeated in each stage as often as it has blocks: 7 x 8 is the whole map."""
DILATIONS_384 = ((1, 13, 1), (1, 6, 1, 6), (1, 3), (1,))


def nat(
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    kernel_size: int = 7,
    dilations: Sequence[Sequence[int]] = ((1,),),
    ratio: float = 3.0,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
    layout: str = "conv",
) -> HierarchicalBackbone:
    """NAT or, with dilations, DiNAT of any size.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths, heads: of each stage.
        kernel_size: side of a neighbourhood.
        dilations: per stage, of its blocks, repeated as often as needed; one entry serves every stage.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        layer_scale: where learned factors of both branches start.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width that the dilations are meant for.
        layout: "conv", with overlapping convolutions, or "swin", with patches and merging.

    Raises:
        ValueError: an unknown layout, or dilations for another number of stages.

    Source: fna spec, configurations.

    Example:
        >>> sum(p.numel() for p in nat(64, (3, 4, 6, 5), (2, 4, 8, 16)).parameters())
        19984174
    """
    layouts: dict[str, tuple[EntrySpec, EntrySpec]] = {"conv": (TwoConvSpec(), DOWN), "swin": (ConvSpec(), MergeSpec())}
    if layout not in layouts:
        raise ValueError(f"layout must be one of {', '.join(layouts)}, got {layout!r}")
    if len(dilations) not in (1, len(depths)):
        raise ValueError(f"dilations must be given for 1 or {len(depths)} stages, got {len(dilations)}")
    stem, down = layouts[layout]
    stages = []
    for index, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        steps = dilations[index % len(dilations)]
        mixers = tuple(NeighborhoodSpec(kernel_size, dilation=steps[block % len(steps)]) for block in range(depth))
        stages.append(
            StageSpec(
                dim * 2**index, count, down if index else stem, mixers, ratio=ratio, layer_scale=layer_scale
            )
        )  # fmt: skip
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    return HierarchicalBackbone(
        BackboneConfig(tuple(stages), in_chans, num_classes, drop_path=drop_path, img_size=size)
    )


MINI: dict[str, Any] = {"dim": 64, "depths": (3, 4, 6, 5), "heads": (2, 4, 8, 16), "drop_path": 0.2}
TINY: dict[str, Any] = {"dim": 64, "depths": DEPTHS, "heads": (2, 4, 8, 16), "drop_path": 0.2}
SMALL: dict[str, Any] = {"dim": 96, "depths": DEPTHS, "heads": (3, 6, 12, 24), "ratio": 2.0, "drop_path": 0.3}
BASE: dict[str, Any] = {
    "dim": 128,
    "depths": DEPTHS,
    "heads": (4, 8, 16, 32),
    "ratio": 2.0,
    "drop_path": 0.5,
    "layer_scale": 1e-5,
}
LARGE: dict[str, Any] = {"dim": 192, "depths": DEPTHS, "heads": (6, 12, 24, 48), "ratio": 2.0, "drop_path": 0.35}
SWIN_T: dict[str, Any] = {"dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "drop_path": 0.2}
SWIN_S: dict[str, Any] = {"dim": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24), "drop_path": 0.3}
SWIN_B: dict[str, Any] = {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "drop_path": 0.5}
SWIN_L: dict[str, Any] = {"dim": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "drop_path": 0.35}

register("nat_mini", nat, WEIGHTS, **MINI)
register("nat_tiny", nat, WEIGHTS, **TINY)
register("nat_small", nat, WEIGHTS, **SMALL, layer_scale=1e-5)
register("nat_base", nat, WEIGHTS, **BASE)
register("dinat_mini", nat, WEIGHTS, **MINI, dilations=DILATIONS)
register("dinat_tiny", nat, WEIGHTS, **TINY, dilations=DILATIONS)
register("dinat_small", nat, WEIGHTS, **SMALL, dilations=DILATIONS)
register("dinat_base", nat, WEIGHTS, **BASE, dilations=DILATIONS)
register("dinat_large", nat, WEIGHTS, **LARGE, dilations=DILATIONS)
register("dinat_large_384", nat, WEIGHTS, **LARGE, dilations=DILATIONS_384, img_size=384)
register("dinat_large_384_11x11", nat, WEIGHTS, **LARGE, dilations=DILATIONS, kernel_size=11, img_size=384)
for size, settings in (("tiny", SWIN_T), ("small", SWIN_S), ("base", SWIN_B), ("large", SWIN_L)):
    register(
        f"dinat_s_{size}", nat, SWIN_LAYOUT_WEIGHTS, **settings, ratio=4.0, layout="swin",
        dilations=((1, 8), (1, 4), (1, 2), (1, 1)),
    )  # fmt: skip
