"""ViTAEv2 with varied windows: attention and convolutions side by side in every block and downsampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from torch import Tensor

from windeye.models.registry import register
from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.block import StageSpec
from windeye.models.vision.names import (
    BLOCK,
    both,
    classes_and_channels,
    pointwise,
    position_index,
    regression_of,
    swin_table,
)
from windeye.models.vision.reduction import POSITION, ReductionCell, ReductionSpec
from windeye.models.weights import Rule, WeightMap
from windeye.nn.mixers import VSAMixer, VSASpec

CELL, LAYER = "layers.{stage}.RC", "layers.{stage}.NC.{block}"
DILATIONS = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2))
KERNELS, STRIDES = (7, 3, 3, 3), (4, 2, 2, 2)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _cell(ours: str, theirs: str) -> dict[str, str | tuple[str, ...] | Rule]:
    """The parts that normal and reduction cells share."""
    convolutions = {f"{ours}.conv_branch.conv{number + 1}": f"{theirs}.PCM.{3 * number}" for number in range(3)}
    norms = {f"{ours}.conv_branch.norm{number + 1}": f"{theirs}.PCM.{3 * number + 1}" for number in range(2)}
    return {
        **both(convolutions | norms),
        **{f"{a}.{name}": f"{b}.{name}" for a, b in norms.items() for name in STATISTICS},
        **both({f"{ours}.norm{number}": f"{theirs}.norm{number}" for number in (1, 2)}),
        **both({f"{ours}.feed_forward.fc{number}": f"{theirs}.mlp.fc{number}" for number in (1, 2)}),
        **both({f"{ours}.position": f"{theirs}.pos"}),
        **{f"{ours}.mixer.{name}.weight": pointwise(f"{theirs}.attn.{name}.weight") for name in ("qkv", "proj")},
        **{f"{ours}.mixer.{name}.bias": f"{theirs}.attn.{name}.bias" for name in ("qkv", "proj")},
        **{
            f"{ours}.mixer.regress.{kind}": regression_of(f"{theirs}.attn", kind, split=True)
            for kind in ("weight", "bias")
        },
        f"{ours}.mixer.bias_table": swin_table(f"{theirs}.attn.relative_position_bias_table"),
    }


def _settings(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    table = checkpoint["layers.0.RC.attn.relative_position_bias_table"]
    window = (isqrt(table.shape[0]) + 1) // 2
    return {"window": window} | classes_and_channels(checkpoint, "layers.0.RC.PRM.convs.0.0.weight")


def _buffers(model: HierarchicalBackbone) -> dict[str, Tensor]:
    """Position indices of every cell."""
    cells = {}
    for stage, (entry, blocks) in enumerate(zip(model.entries, model.stages, strict=True)):
        if isinstance(entry, ReductionCell):
            cells[CELL.format(stage=stage)] = entry.mixer
        cells |= {
            LAYER.format(stage=stage, block=number): block.mixer
            for number, block in enumerate(blocks.children())
            if isinstance(block.mixer, VSAMixer)
        }
    return {f"{name}.attn.relative_position_index": position_index(mixer.window) for name, mixer in cells.items()}


WEIGHTS = WeightMap(
    "ViTAEv2 with varied windows",
    {
        **_cell("entries.{stage}", CELL),
        **_cell(BLOCK, LAYER),
        **both({"entries.{stage}.dilated.{dilation}": f"{CELL}.PRM.convs.{{dilation}}.0", "head": "head"}),
    },
    dropped=r".*relative_position_index",
    regenerated=_buffers,
    signature=r"layers\.0\.RC\.attn\.sampling_offsets\.2\.weight",
    settings=_settings,
)
"""Names of the released files."""


def vitae(
    embed: Sequence[int],
    dims: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    *,
    cell_heads: Sequence[int],
    groups: Sequence[int] = (1, 32, 64, 128),
    cell_groups: Sequence[int] = (1, 16, 32, 64),
    wide_branch: bool = False,
    dilations: Sequence[tuple[int, ...]] = DILATIONS,
    window: int = 7,
    zero_init: bool = True,
    drop_path: float = 0.0,
    in_chans: int = 3,
    num_classes: int = 1000,
    img_size: int | tuple[int, int] = 224,
) -> HierarchicalBackbone:
    """ViTAEv2 of any size, varied windows in every cell: no final norm, a convolution for positions that attention
    alone sees.

    Args:
        embed: channels of each dilated convolution, for every stage.
        dims, depths, heads: of the stages.
        cell_heads: heads of the attention inside each downsampler.
        groups, cell_groups: of the convolutions beside attention, in blocks and in downsamplers.
        wide_branch: whether those of downsamplers are twice as wide as the stage instead of ``embed``.
        dilations: of every stage's downsampler.
        window: side of a window.
        zero_init: start as plain windows. The official code starts as any convolution does.
        drop_path: rate of the last block. The official code cuts its ramp of rates at other places: with depths 2, 2,
            8, 2 the stages get its entries 0:2, 2:4, 2:10 and 8:10; here each block gets its own.
        in_chans, num_classes: channels of the images and classes of the head; 0 classes is no head.
        img_size: height and width of the published model's images.

    Source: vsa spec, configurations.

    Example:
        >>> model = vitae(
        ...     (64, 64, 128, 256), (64, 128, 256, 512), (2, 2, 8, 2), (2, 4, 8, 16), cell_heads=(2, 2, 4, 8)
        ... )
        >>> sum(p.numel() for p in model.parameters())
        19773300
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    mixer = VSASpec(window, hide_padding=False, offset_divisor="whole", zero_init=zero_init)
    stages = []
    for index, (dim, depth, count) in enumerate(zip(dims, depths, heads, strict=True)):
        entry = ReductionSpec(
            embed[index], dilations[index], KERNELS[index], STRIDES[index], cell_heads[index], window,
            2 * dim if wide_branch else embed[index], cell_groups[index], zero_init=zero_init,
        )  # fmt: skip
        stages.append(
            StageSpec(
                dim, count, entry, (mixer,) * depth, position=POSITION, position_scope="branch",
                conv_groups=groups[index], norm_eps=1e-6,
            )
        )  # fmt: skip
    return HierarchicalBackbone(
        BackboneConfig(
            tuple(stages), in_chans, num_classes, drop_path=drop_path, final_norm="none", img_size=size
        )
    )  # fmt: skip


SMALL = {
    "embed": (64, 64, 128, 256), "dims": (64, 128, 256, 512), "depths": (2, 2, 8, 2), "heads": (2, 4, 8, 16),
}  # fmt: skip
MEDIUM, BASE = (
    {
        "embed": (width, width, 2 * width, 4 * width), "dims": tuple(width * 2**stage for stage in range(4)),
        "depths": depths, "heads": heads, "cell_heads": heads, "wide_branch": True,
    }
    for width, depths, heads in ((96, (2, 2, 11, 2), (3, 6, 12, 24)), (128, (2, 2, 12, 2), (4, 8, 16, 32)))
)  # fmt: skip
register("vitaev2_s_vsa", vitae, WEIGHTS, cell_heads=(2, 2, 4, 8), **SMALL)
register("vitaev2_s_vsa_wide", vitae, WEIGHTS, cell_heads=(2, 4, 8, 16), wide_branch=True, **SMALL)
register("vitaev2_48m_vsa", vitae, WEIGHTS, drop_path=0.25, **MEDIUM)
register("vitaev2_b_vsa", vitae, WEIGHTS, **BASE)
