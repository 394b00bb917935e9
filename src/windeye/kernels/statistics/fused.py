"""Torch's own fused attention as a source of normalisers and of sums that are linear in the weights, on any device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import KeyStatistic, RowMass, Statistic

WIDTH = 8
"""Fused kernels want widths that are multiples of it."""


def plain(scores: Scores) -> str | None:
    """Why torch's attention cannot compute with these logits and no mask; None if it can."""
    if scores.softcap is not None:
        return "logits are capped"
    if scores.sink_logits is not None:
        return "there are learned sinks"
    if scores.bias is not None or scores.edits:
        return "logits are changed"
    if not (_is_causal(scores) or _sees_all(scores)):
        return "queries see neither everything nor, as many as keys, just their past; a mask would be quadratic"
    return None


def can_run(scores: Scores, stat: Statistic) -> str | None:
    """Why attention with other values cannot compute this statistic; None if it can."""
    if not isinstance(stat, KeyStatistic | RowMass):
        return "only sums of functions of the key are attention with other values"
    return plain(scores)


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """The statistics, their functions of the key taken as values; differentiable."""
    features = [_features(stat, scores) for stat in stats.values()]
    batch = max(f.shape[0] for f in features)
    widths = [f.shape[-1] for f in features]
    sums = _attend(scores, torch.cat([f.expand(batch, -1, -1) for f in features], dim=-1))
    parts = torch.split(sums.to(scores.wide), widths, dim=-1)
    return {
        name: part if isinstance(stat, KeyStatistic) and stat.several else part[..., 0]
        for (name, stat), part in zip(stats.items(), parts, strict=True)
    }


def _features(stat: Statistic, scores: Scores) -> Float[Tensor, "batch keys features"]:
    if isinstance(stat, KeyStatistic):
        return stat.features(scores)
    return torch.ones(1, scores.relation.keys, 1, dtype=scores.wide, device=scores.query.device)


def _attend(
    scores: Scores, features: Float[Tensor, "batch keys features"]
) -> Float[Tensor, "batch queries heads features"]:
    """``sum_s A[t, s] features[s]``. The values are as wide as the keys, which are filled up with zeros where there are
    more features than channels: fused kernels want both alike."""
    query, key = (t.transpose(1, 2) for t in (scores.query, scores.key))
    count, width = features.shape[-1], query.shape[-1]
    wide = max(width, count)
    wide += -wide % WIDTH
    query, key = (F.pad(t, (0, wide - width)) for t in (query, key))
    value = F.pad(features.to(key.dtype), (0, wide - count))[:, None].expand(scores.batch, key.shape[1], -1, -1)
    out = F.scaled_dot_product_attention(
        query, key, value, is_causal=_is_causal(scores), scale=scores.scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out[..., :count].transpose(1, 2)


def _is_causal(scores: Scores) -> bool:
    relation = scores.relation
    if not isinstance(relation, Runs) or relation.queries != relation.keys or relation.start.shape[1] != 1:
        return False
    place = torch.arange(relation.queries, device=relation.start.device)
    return bool((relation.start == 0).all()) and bool((relation.stop == place + 1).all())


def _sees_all(scores: Scores) -> bool:
    relation = scores.relation
    if not isinstance(relation, Runs) or relation.start.shape[1] != 1:
        return False
    return bool((relation.start == 0).all()) and bool((relation.stop == relation.keys).all())
