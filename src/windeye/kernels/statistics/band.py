"""Entries near the diagonal, from tiles of queries and the keys around them: for sums that need no others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.statistics import compiled, cpu, slab
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import ColumnStatistic, DistanceStatistic, RowMass, Statistic

TILE = 128
"""Queries of a tile."""

WIDEST = 1024
"""Distances of a band from which whole rows are as good."""


def can_run(scores: Scores, stat: Statistic) -> str | None:
    """Why a band of the map does not do for this statistic; None if it does."""
    if not isinstance(scores.relation, Runs):
        return "what a query sees differs between heads"
    if scores.bias is not None or scores.edits:
        return "logits are changed"
    if scores.needs_grad:
        return "a gradient is asked for"
    reach = _reach(stat)
    if reach is None:
        return "it needs more than the entries near the diagonal"
    if reach[1] - reach[0] >= WIDEST:
        return f"its band of {reach[1] - reach[0] + 1} distances is wider than {WIDEST}"
    if isinstance(stat, DistanceStatistic) and scores.sink_logits is not None and _far(stat):
        return "with learned sinks the rest of a row is not one minus the band"
    return None


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, from the normalisers and the band."""
    lse = normalisers(scores)
    return {name: _columns(scores, lse, stat) if isinstance(stat, ColumnStatistic) else _rows(scores, lse, stat)
            for name, stat in stats.items()}  # fmt: skip


def normalisers(scores: Scores) -> Float[Tensor, "batch queries heads"]:
    """The log-sum-exp of each row, by the cheapest way there is."""
    if cpu.can_run(scores, RowMass()) is None:
        return compiled.Work(scores).rows().lse
    parts = [slab.RowSlab(scores, rows, scores.logits(rows)).lse for rows in slab.slabs(scores)]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _reach(stat: Statistic) -> tuple[int, int] | None:
    """The distances whose entries a statistic needs."""
    if isinstance(stat, DistanceStatistic) and stat.band is not None:
        return stat.band
    if isinstance(stat, ColumnStatistic) and stat.lags[1] is not None and stat.lags[0] >= 0:
        return stat.lags[0], stat.lags[1]
    return None


def _far(stat: DistanceStatistic) -> float:
    """What the function is outside of its band, on either side."""
    assert stat.band is not None
    below, above = (float(stat.phi(torch.tensor(d))) for d in (stat.band[0] - 1, stat.band[1] + 1))
    assert below == above, "a band tells the rest of a row only where both sides are alike"
    return above


def _rows(scores: Scores, lse: Tensor, stat: Statistic) -> Float[Tensor, "batch queries heads"]:
    assert isinstance(stat, DistanceStatistic)
    assert stat.band is not None
    far = _far(stat)
    out = (lse > -torch.inf).to(scores.wide) * far
    for rows, keys in _tiles(scores, *stat.band):
        distance = scores.distance(rows, keys)
        inside = (distance >= stat.band[0]) & (distance <= stat.band[1])
        weight = _weights(scores, lse, rows, keys)
        out[:, rows] += (weight * ((stat.phi(distance).to(weight.dtype) - far) * inside)).sum(dim=-1).transpose(1, 2)
    return out


def _columns(scores: Scores, lse: Tensor, stat: ColumnStatistic) -> Float[Tensor, "batch keys heads"]:
    low, high = stat.lags
    assert high is not None
    out = scores.key.new_zeros(scores.batch, scores.relation.keys, scores.heads, dtype=scores.wide)
    for rows, keys in _tiles(scores, low, high):
        distance = scores.distance(rows, keys)
        weight = _weights(scores, lse, rows, keys) * ((distance >= low) & (distance <= high))
        if scores.rows is not None:
            weight = weight * scores.rows[:, None, rows, None]
        out[:, keys] += weight.sum(dim=2).transpose(1, 2)
    return out


def _tiles(scores: Scores, low: int, high: int) -> list[tuple[slice, slice]]:
    """Queries, and the keys at distances ``low`` to ``high`` from any of them."""
    offset, queries, keys = scores.relation.offset, scores.relation.queries, scores.relation.keys
    tiles = []
    for begin in range(0, queries, TILE):
        end = min(begin + TILE, queries)
        first, last = max(0, begin + offset - high), min(keys, end - 1 + offset - low + 1)
        if first < last:
            tiles.append((slice(begin, end), slice(first, last)))
    return tiles


def _weights(scores: Scores, lse: Tensor, rows: slice, keys: slice) -> Float[Tensor, "batch heads rows keys"]:
    """Entries of the map."""
    norm = lse[:, rows].transpose(1, 2)[..., None]
    return torch.exp(scores.logits(rows, keys) - norm.masked_fill(norm == -torch.inf, 0.0))
