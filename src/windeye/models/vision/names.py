"""What the tables of official names of vision models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from windeye.models.weights import Rule, Shape, stacked

STAGES = 4
"""Published models have so many at most."""
BLOCK = "stages.{stage}.{block}"


def both(names: Mapping[str, str]) -> dict[str, str]:
    """Modules with weight and bias.

    Example:
        >>> both({"head": "head"})
        {'head.weight': 'head.weight', 'head.bias': 'head.bias'}
    """
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in names.items() for kind in ("weight", "bias")}


def downsamplers(theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    """Entries of the stages behind the first, which official files count as the end of the stage before.

    Example:
        >>> downsamplers("layers.{}.downsample", {"proj.weight": "reduction.weight"})["entries.1.proj.weight"]
        'layers.0.downsample.reduction.weight'
    """
    return {
        f"entries.{stage + 1}.{ours}": f"{theirs.format(stage)}.{name}"
        for stage in range(STAGES - 1)
        for ours, name in names.items()
    }


def swin_table(name: str) -> Rule:
    """Swin's bias table, [offsets, heads] by query minus key, as ours, [heads, rows, columns] by key minus query."""

    def to_ours(parts: Sequence[Tensor], shape: Shape) -> Tensor:
        _, rows, columns = shape
        return parts[0].reshape(rows, columns, -1).flip(0, 1).permute(2, 0, 1)

    def to_theirs(table: Tensor) -> Sequence[Tensor]:
        return (table.permute(1, 2, 0).flip(0, 1).flatten(0, 1),)

    def resize(table: Tensor, shape: Shape) -> Tensor:
        old, new = isqrt(table.shape[0]), isqrt(shape[0])
        if old**2 != table.shape[0] or new**2 != shape[0] or table.shape[1] != shape[1]:
            raise ValueError(f"{name} can only be interpolated between square windows of equal heads")
        square = table.T.reshape(-1, old, old)
        return resized_table(square, (len(square), new, new)).flatten(1).T

    return Rule((name,), to_ours, to_theirs, resize)


def position_index(window: tuple[int, int]) -> Int[Tensor, "cells cells_kv"]:
    """Where in Swin's table each pair of a window looks: by query minus key. Official files hold it.

    Example:
        >>> position_index((1, 2)).tolist()
        [[1, 0], [2, 1]]
    """
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in window), indexing="ij")
    down, right = (at.flatten()[:, None] - at.flatten()[None] for at in (rows, columns))
    return (down + window[0] - 1) * (2 * window[1] - 1) + right + window[1] - 1


def pointwise(name: str) -> Rule:
    """A linear map of ours that is a 1 x 1 convolution in the official file."""
    return Rule((name,), lambda parts, _: parts[0][..., 0, 0], lambda weight: (weight[..., None, None],))


def regression_of(attention: str, kind: str, *, split: bool) -> Rule:
    """The regression of moved windows, four rows per head: one official convolution, or one for offsets and one for
    scales, of two rows per head each."""
    if not split:
        return stacked(f"{attention}.transform.2.{kind}")
    names = tuple(f"{attention}.sampling_{part}.2.{kind}" for part in ("offsets", "scales"))
    return Rule(
        names,
        lambda parts, _: torch.cat([torch.unflatten(part, 0, (-1, 2)) for part in parts], dim=1).flatten(0, 1),
        lambda rows: tuple(part.flatten(0, 1) for part in torch.split(torch.unflatten(rows, 0, (-1, 4)), 2, dim=1)),
    )


def neighborhood_table(name: str) -> Rule:
    """A bias table that is ours already, and may be resized."""
    return Rule((name,), lambda parts, _: parts[0], lambda table: (table,), resized_table)


def resized_table(table: Float[Tensor, "heads rows columns"], shape: Shape) -> Float[Tensor, "heads r c"]:
    """The table for other windows, bicubic, as Swin and DiNAT are fine-tuned.

    Raises:
        ValueError: another number of heads.
    """
    if table.shape[0] != shape[0]:
        raise ValueError(f"a table of {table.shape[0]} heads cannot serve {shape[0]}")
    return F.interpolate(table[None], shape[1:], mode="bicubic", align_corners=False)[0]


def classes_and_channels(checkpoint: Mapping[str, Tensor], stem: str, head: str = "head.weight") -> dict[str, Any]:
    """Settings that the first convolution and the head of an official file say."""
    classes = checkpoint[head].shape[0] if head in checkpoint else 0
    return {"in_chans": checkpoint[stem].shape[1], "num_classes": classes}
