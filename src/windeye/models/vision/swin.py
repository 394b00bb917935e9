"""Swin Transformers."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec, MergeSpec
from windeye.nn.mixers import WindowSpec


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


register("swin_t", swin, dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path=0.2)
register("swin_s", swin, dim=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.3)
register("swin_b", swin, dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.5)
register("swin_l", swin, dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), drop_path=0.2)
