"""CSWin Transformers."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.entries import ConvSpec
from windeye.models.vision.names import STAGES, both, classes_and_channels
from windeye.models.weights import WeightMap
from windeye.nn.mixers import StripeSpec

WEIGHTS = WeightMap(
    "CSWin",
    both({
        "entries.0.conv": "stage1_conv_embed.0",
        "entries.0.norm": "stage1_conv_embed.2",
        "final_norm": "norm",
        "head": "head",
    })
    | both({
        f"entries.{stage}.{ours}": f"merge{stage}.{ours}" for stage in range(1, STAGES) for ours in ("conv", "norm")
    })
    | both({
        f"stages.{stage}.{{block}}.{ours}": f"stage{stage + 1}.{{block}}.{theirs}"
        for stage in range(STAGES)
        for ours, theirs in {
            "norm1": "norm1",
            "mixer.qkv": "qkv",
            "mixer.proj": "proj",
            "mixer.local.{half}": "attns.{half}.get_v",
            "norm2": "norm2",
            "feed_forward.fc1": "mlp.fc1",
            "feed_forward.fc2": "mlp.fc2",
        }.items()
    }),
    signature=r"stage1\.0\.attns\.0\.get_v\.weight",
    settings=lambda checkpoint: classes_and_channels(checkpoint, "stage1_conv_embed.0.weight"),
)  # fmt: skip
"""Names of the released files."""

STEM = ConvSpec(7, 4, 2)
DOWN = ConvSpec(3, 2, 1)


def cswin(
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    stripes: Sequence[int | None] = (1, 2, 7, None),
    ratio: float = 4.0,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """CSWin of any size: a cross of stripes around each token.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths, heads: of each stage.
        stripes: width of the stripes of each stage, in tokens; None is the whole map.
        ratio: inner width of the feed-forward parts, in widths of the stage.
        drop_path: rate of the last block.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width of the published model's images.

    Source: maformer spec, table of peers; vision notes.

    Example:
        >>> model = cswin(16, (1, 1), (2, 4), stripes=(1, None), num_classes=5)
        >>> [block.mixer.stripe for stage in model.stages for block in stage]
        [1, None]
    """
    stages = [
        StageSpec(
            dim * 2**index, count, DOWN if index else STEM, (StripeSpec(stripe),) * depth, ratio=ratio
        )
        for index, (depth, count, stripe) in enumerate(zip(depths, heads, stripes, strict=True))
    ]  # fmt: skip
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    return HierarchicalBackbone(
        BackboneConfig(tuple(stages), in_chans, num_classes, drop_path=drop_path, img_size=size)
    )


register("cswin_t", cswin, WEIGHTS, dim=64, depths=(1, 2, 21, 1), heads=(2, 4, 8, 16), drop_path=0.2)
register("cswin_s", cswin, WEIGHTS, dim=64, depths=(2, 4, 32, 2), heads=(2, 4, 8, 16), drop_path=0.4)
register("cswin_b", cswin, WEIGHTS, dim=96, depths=(2, 4, 32, 2), heads=(4, 8, 16, 32), drop_path=0.5)
