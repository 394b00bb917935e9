"""Some rows of the attention map, whole: what every statistic is defined on, and the route that runs them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import ColumnStatistic, RowStatistic, Statistic

BYTES = 2**26
"""Memory that the logits of one slab may take."""


@dataclass(frozen=True, eq=False)
class RowSlab:
    """Rows ``rows`` of the map: ``exp(logits - lse)``. A row that sees nothing is zero."""

    scores: Scores
    rows: slice
    logits: Float[Tensor, "batch heads rows keys"]

    @cached_property
    def lse(self) -> Float[Tensor, "batch heads rows"]:
        """Of all that takes part in the softmax, sinks included; ``-inf`` where nothing does."""
        seen = self.logits.amax(dim=-1) > -torch.inf
        lse = torch.logsumexp(self.logits.masked_fill(~seen[..., None], 0.0), dim=-1)
        lse = lse.masked_fill(~seen, -torch.inf)
        if self.scores.sink_logits is None:
            return lse
        return torch.logaddexp(lse, self.scores.sink_logits.to(lse.dtype)[:, None])

    @cached_property
    def log_weights(self) -> Float[Tensor, "batch heads rows keys"]:
        """Logarithms of the weights, zero where there is no weight: they only appear in products with one."""
        lse = self.lse.masked_fill(self.lse == -torch.inf, 0.0)
        return (self.logits - lse[..., None]).masked_fill(~self.seen, 0.0)

    @cached_property
    def weights(self) -> Float[Tensor, "batch heads rows keys"]:
        return torch.exp(self.log_weights).masked_fill(~self.seen, 0.0)

    @cached_property
    def seen(self) -> Bool[Tensor, "batch heads rows keys"]:
        return self.logits > -torch.inf

    @property
    def distance(self) -> Int[Tensor, "rows keys"]:
        """Query position minus key position."""
        return self.scores.distance(self.rows)

    @property
    def counted(self) -> Float[Tensor, "batch 1 rows 1"] | None:
        """1 for queries that count in columns; None: all do."""
        rows = self.scores.rows
        return None if rows is None else rows[:, None, self.rows, None].to(self.logits.dtype)


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, from slabs of rows; differentiable, with no slab kept for
    the backward pass."""
    names = list(stats)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for rows in slabs(scores):
        if scores.needs_grad:
            values = checkpoint(_of_rows, scores, rows, stats, use_reentrant=False)
        else:
            values = _of_rows(scores, rows, stats)
        for name, value in zip(names, values, strict=True):
            if isinstance(stats[name], RowStatistic) or not parts[name]:
                parts[name].append(value)
            else:
                parts[name][0] = parts[name][0] + value
    return {name: _whole(stats[name], scores, parts[name]) for name in names}


def slabs(scores: Scores) -> list[slice]:
    """The queries in ranges whose logits fit `BYTES`."""
    queries = scores.relation.queries
    width = scores.batch * scores.heads * scores.relation.keys * scores.wide.itemsize
    step = max(1, BYTES // max(1, width))
    return [slice(begin, min(begin + step, queries)) for begin in range(0, queries, step)]


def _of_rows(scores: Scores, rows: slice, stats: Mapping[str, Statistic]) -> tuple[Tensor, ...]:
    slab = RowSlab(scores, rows, scores.logits(rows))
    return tuple(stat.of_rows(slab) for stat in stats.values())


def _whole(stat: Statistic, scores: Scores, parts: list[Tensor]) -> Tensor:
    if isinstance(stat, ColumnStatistic):
        total = parts[0] if parts else scores.key.new_zeros(scores.batch, scores.heads, scores.relation.keys)
        return total.movedim(1, 2)
    if not parts:
        raise ValueError("query has no tokens")
    return torch.cat(parts, dim=2).movedim(1, 2)
