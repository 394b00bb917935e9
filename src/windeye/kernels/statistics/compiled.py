"""Calls of the compiled module: rows in one walk over the keys with a running maximum, columns in a second one with the
normalisers of the first, gradients from the same normalisers. Memory grows with the tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from windeye.kernels import native
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    DistanceStatistic,
    Entropy,
    KeyStatistic,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    Statistic,
    TopKeys,
)

MOST_TOP = 32
"""Keys that the module ranks per row."""

FAR = 2**40
"""A distance beyond all others."""

SUMS: dict[type[Statistic], str] = {
    RowMass: "mass",
    Entropy: "entropy",
    Participation: "squares",
    MeanDistance: "distance",
}
"""Statistics that have a sum of their own, and its name."""


class Asked:
    """What one row pass is asked for: row statistics by the way in which they are computed."""

    def __init__(self, stats: Iterable[Statistic]) -> None:
        listed = list(stats)
        self.sums = [name for kind, name in SUMS.items() if any(type(stat) is kind for stat in listed)]
        self.keys = [stat for stat in listed if isinstance(stat, KeyStatistic)]
        self.distances = [s for s in listed if isinstance(s, DistanceStatistic) and type(s) not in SUMS]
        self.top = max((stat.count if isinstance(stat, TopKeys) else 1 for stat in listed if ranks(stat)), default=0)


@dataclass(frozen=True)
class Rows:
    """What a row pass has written, [batch, queries, heads, ...]."""

    lse: Float[Tensor, "batch queries heads"]
    sums: dict[str, Tensor]
    features: Float[Tensor, "batch queries heads features"]
    tables: Float[Tensor, "batch queries heads tables"]
    top_weight: Float[Tensor, "batch queries heads top"]
    top_key: Int32[Tensor, "batch queries heads top"]


@dataclass(eq=False)
class Work:
    """One problem as the module takes it, and what must outlive the call."""

    scores: Scores
    asked: Asked = field(default_factory=lambda: Asked(()))
    alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        scores, relation = self.scores, self.scores.relation
        assert isinstance(relation, Runs)
        query, key = scores.query.detach(), scores.key.detach()
        self.shape = query.shape[:3]
        self.wide = scores.wide
        self.alive += [query, key]
        self.call = native.cpu.StatisticsCall(
            native.TYPES[query.dtype],
            [query.shape[0], query.shape[2], key.shape[2], query.shape[3], query.shape[1], key.shape[1]],
            scores.scale, scores.softcap or 0.0, relation.offset, torch.get_num_threads(),
            os.environ.get("WINDEYE_ISA", ""),
        )  # fmt: skip
        self.call.set_inputs(_strides(query), _strides(key))
        start, stop = self._keep(relation.start.int()), self._keep(relation.stop.int())
        self.call.set_runs(start.data_ptr(), stop.data_ptr(), *start.shape[:2])
        if scores.sink_logits is not None:
            self.call.set_sink(self._keep(scores.sink_logits.detach().to(self.wide)).data_ptr())
        if scores.bias is not None:
            bias = self._keep(scores.bias.detach()[:, :, 0].to(self.wide).expand(-1, -1, relation.keys))
            strides = [stride if size > 1 else 0 for stride, size in zip(bias.stride(), bias.shape, strict=True)]
            self.call.set_bias(bias.data_ptr(), *strides[:2])

    def rows(self) -> Rows:
        """The normalisers, and all that is asked for beside them."""
        asked = self.asked
        found = Rows(
            self._empty(), {name: self._empty() for name in asked.sums}, self._empty(self.features.shape[-1]),
            self._empty(len(asked.distances)), self._empty(asked.top), self._empty(asked.top, dtype=torch.int32),
        )  # fmt: skip
        self._set_linear(found.features, found.tables)
        self.call.set_lse(found.lse.data_ptr())
        self.call.set_sums(*(_address(found.sums.get(name)) for name in SUMS.values()))
        self.call.set_top(asked.top, found.top_weight.data_ptr(), found.top_key.data_ptr())
        self.call.rows()
        return found

    def columns(self, lse: Tensor, lags: tuple[int, int | None]) -> Float[Tensor, "batch keys heads"]:
        """Sums of weights at distances ``lags`` over the queries that count."""
        batch, queries, heads = self.shape
        sums = torch.empty(batch, self.scores.relation.keys, heads, dtype=self.wide)
        counted = None if self.scores.rows is None else self._keep(self.scores.rows.to(self.wide))
        low, high = lags
        self.call.set_lse(lse.data_ptr())
        self.call.columns(_address(counted), queries, low, FAR if high is None else high, sums.data_ptr())
        return sums

    def backward(self, lse: Tensor, factors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Gradients of query and key. ``factors`` of each row are those of csrc/statistics_problem.h, in its order."""
        scores = self.scores
        query, key = torch.empty_like(scores.query), torch.empty_like(scores.key)
        given = [None if factor is None else self._keep(factor) for factor in factors]
        self._set_linear(None, None)
        self.call.set_lse(lse.data_ptr())
        self.call.backward([_address(factor) for factor in given], _strides(query), _strides(key))
        return query, key

    @cached_property
    def features(self) -> Float[Tensor, "batch keys features"]:
        """Of all key statistics side by side; batch is 1 where all entries are alike."""
        if not self._features:
            return torch.empty(1, self.scores.relation.keys, 0, dtype=self.wide)
        batch = max(features.shape[0] for features in self._features)
        return torch.cat([features.expand(batch, -1, -1) for features in self._features], dim=-1).contiguous()

    def features_of(self, stat: KeyStatistic) -> slice:
        """Where a key statistic's features stand among all."""
        number = self.asked.keys.index(stat)
        first = sum(features.shape[-1] for features in self._features[:number])
        return slice(first, first + self._features[number].shape[-1])

    @cached_property
    def _features(self) -> list[Tensor]:
        return [stat.features(self.scores).to(self.wide) for stat in self.asked.keys]

    @cached_property
    def distances(self) -> range:
        """Of the distances that occur, those between which a statistic changes; all where no band is known."""
        relation = self.scores.relation
        nearest, farthest = relation.offset - relation.keys + 1, relation.offset + relation.queries - 1
        bands = [stat.band or (nearest, farthest) for stat in self.asked.distances]
        first = min(max(nearest, min(low for low, _ in bands)), farthest)
        return range(first, max(min(farthest, max(high for _, high in bands)), first) + 1)

    def _set_linear(self, feature_sums: Tensor | None, table_sums: Tensor | None) -> None:
        features = self.features
        stride = features.stride(0) if features.shape[0] > 1 else 0
        self.call.set_features(features.data_ptr(), stride, features.shape[-1], _address(feature_sums))
        if self.asked.distances:
            at = torch.arange(self.distances.start, self.distances.stop)
            tables = self._keep(torch.stack([stat.phi(at).to(self.wide) for stat in self.asked.distances]))
            self.call.set_tables(tables.data_ptr(), *tables.shape, self.distances.start, _address(table_sums))

    def _keep(self, tensor: Tensor) -> Tensor:
        self.alive.append(tensor.contiguous())
        return self.alive[-1]

    def _empty(self, *behind: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(*self.shape, *behind, dtype=dtype or self.wide)


def ranks(stat: Statistic) -> bool:
    """Whether a statistic asks for the heaviest keys."""
    return type(stat) in (MaxWeight, TopKeys)


def _strides(tensor: Tensor) -> list[int]:
    return [tensor.data_ptr(), *tensor.stride()]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
