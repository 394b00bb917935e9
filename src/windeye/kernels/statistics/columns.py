"""The statistics of columns: what a key receives from the queries that see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.statistic import ColumnStatistic, at_least

if TYPE_CHECKING:
    from windeye.kernels.statistics.scores import Scores
    from windeye.kernels.statistics.slab import RowSlab


@dataclass(frozen=True)
class ColumnSum(ColumnStatistic):
    """``sum_t A[t, s]``: the attention that a key receives.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"c": ColumnSum()})["c"][0, 3, 0].double().round(decimals=2).item()
        0.25
    """

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads keys"]:
        weights = slab.weights if slab.counted is None else slab.weights * slab.counted
        return weights.sum(dim=2)


@dataclass(frozen=True)
class ColumnMean(ColumnSum):
    """``sum_t A[t, s]`` over the number of queries that see the key; 0 where none does.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"c": ColumnMean()})["c"][0, 2:, 0].double().round(decimals=2).tolist()
        [0.29, 0.25]
    """

    def counts(self, scores: Scores) -> Int[Tensor, "batch keys heads"]:
        """Queries that count and see the key."""
        relation = scores.relation
        if isinstance(relation, Runs):
            return relation.seen_by(scores.rows)[..., None]
        seen = relation.visible(slice(0, relation.queries))
        if scores.rows is not None:
            seen = seen & scores.rows[:, None, :, None]
        return seen.sum(dim=2).transpose(1, 2)


@dataclass(frozen=True)
class FutureInfluence(ColumnStatistic):
    """Mean of ``A[t, s]`` over the queries ``low <= t - s <= high`` that there are and that count; 0 without any.

    Averaged over global heads it is the future attention influence, FAI (preplan-anchor spec, mechanism 4).
    ``high`` None goes to the end.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"f": FutureInfluence(1, 2)})["f"][0, 2:, 0].double().round(decimals=2).tolist()
        [0.25, 0.0]
    """

    low: int = 10
    high: int | None = 100

    def __post_init__(self) -> None:
        at_least("low", self.low, 0)
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high {self.high} must not be below low {self.low}")

    @property
    def lags(self) -> tuple[int, int | None]:  # type: ignore[override]
        return self.low, self.high

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads keys"]:
        far = slab.distance >= self.low
        if self.high is not None:
            far &= slab.distance <= self.high
        weights = slab.weights * far
        return (weights if slab.counted is None else weights * slab.counted).sum(dim=2)

    def counts(self, scores: Scores) -> Int[Tensor, "batch keys 1"]:
        """Queries that count and stand within the horizon, whether they see the key or not."""
        relation = scores.relation
        counted = torch.ones(1, relation.queries, dtype=torch.long) if scores.rows is None else scores.rows.long()
        before = torch.nn.functional.pad(counted.to(scores.query.device).cumsum(dim=-1), (1, 0))
        key = torch.arange(relation.keys, device=before.device) - relation.offset
        high = relation.queries + relation.keys if self.high is None else self.high
        first, last = ((key + reach).clamp(0, relation.queries) for reach in (self.low, high + 1))
        return (before[:, last] - before[:, first])[..., None]
