"""What all compiled passes share: what a row pass is asked for and has written, how values are read off it, and its
gradient. A pass itself is compiled for a device: `compiled.Work` for CPUs, `triton.launch.Work` for GPUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    ColumnStatistic,
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
"""Keys that a pass ranks per row."""

SUMS: dict[type[Statistic], str] = {
    RowMass: "mass",
    Entropy: "entropy",
    Participation: "squares",
    MeanDistance: "distance",
}
"""Statistics that have a sum of their own, and its name."""

_COLUMNS = (ColumnSum, ColumnMean, FutureInfluence)


def refusal(scores: Scores, stat: Statistic) -> str | None:
    """Why no compiled pass can take this statistic of these scores, whatever the device; None if one can."""
    if not isinstance(scores.relation, Runs):
        return "what a query sees differs between heads; it reads runs of keys that all heads share"
    if scores.edits:
        return "logits are edited"
    if scores.bias is not None and scores.bias.shape[2] != 1:
        return "the bias differs between queries"
    linear = isinstance(stat, DistanceStatistic | KeyStatistic)
    if not linear and type(stat) not in (*SUMS, *_COLUMNS) and not ranks(stat):
        return f"it has no form of {type(stat).__name__}"
    if isinstance(stat, TopKeys) and stat.count > MOST_TOP:
        return f"it ranks at most {MOST_TOP} keys, not {stat.count}"
    if not scores.needs_grad:
        return None
    if scores.bias is not None and scores.bias.requires_grad:
        return 'it has no gradient of the bias; route "slab" has'
    if not linear and type(stat) not in SUMS:
        return f'it has no gradient of {type(stat).__name__}; route "slab" has'
    return None


class Asked:
    """What one row pass is asked for: row statistics by the way in which they are computed."""

    def __init__(self, stats: Iterable[Statistic]) -> None:
        listed = list(stats)
        self.sums = [name for kind, name in SUMS.items() if any(type(stat) is kind for stat in listed)]
        self.keys = [stat for stat in listed if isinstance(stat, KeyStatistic)]
        self.distances = [s for s in listed if isinstance(s, DistanceStatistic) and type(s) not in SUMS]
        self.top = max((stat.count if isinstance(stat, TopKeys) else 1 for stat in listed if ranks(stat)), default=0)
        self.keyed = any(isinstance(stat, TopKeys) for stat in listed)


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
class Pass(ABC):
    """One problem, and the passes over it."""

    scores: Scores
    asked: Asked = field(default_factory=lambda: Asked(()))

    @abstractmethod
    def rows(self) -> Rows:
        """The normalisers, and all that is asked for beside them."""

    @abstractmethod
    def columns(self, lse: Tensor, lags: tuple[int, int | None]) -> Float[Tensor, "batch keys heads"]:
        """Sums of weights at distances ``lags`` over the queries that count."""

    @abstractmethod
    def backward(self, lse: Tensor, factors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Gradients of query and key. ``factors`` of each row are those of csrc/statistics_problem.h, in its order."""

    @property
    def wide(self) -> torch.dtype:
        return self.scores.wide

    @property
    def shape(self) -> torch.Size:
        """Batch, queries and heads."""
        return self.scores.query.shape[:3]

    @cached_property
    def features(self) -> Float[Tensor, "batch keys features"]:
        """Of all key statistics side by side; batch is 1 where all entries are alike."""
        if not self._features:
            return torch.empty(1, self.scores.relation.keys, 0, dtype=self.wide, device=self.scores.query.device)
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

    @cached_property
    def tables(self) -> Float[Tensor, "tables distances"]:
        """The functions of the distance, at `distances`."""
        at = torch.arange(self.distances.start, self.distances.stop, device=self.scores.query.device)
        return torch.stack([stat.phi(at).to(self.wide) for stat in self.asked.distances])

    def _empty(self, *behind: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(*self.shape, *behind, dtype=dtype or self.wide, device=self.scores.query.device)


def ranks(stat: Statistic) -> bool:
    """Whether a statistic asks for the heaviest keys."""
    return type(stat) in (MaxWeight, TopKeys)


def asked_of(stats: Mapping[str, Statistic]) -> Asked:
    """What the row pass is asked for by all of these."""
    return Asked(stat for stat in stats.values() if not isinstance(stat, ColumnStatistic))


def values(work: Pass, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, which `refusal` has let pass; ``work`` is asked for the
    former."""
    rows = _differentiable_rows(work) if work.scores.needs_grad else work.rows()
    found: dict[str, Tensor] = {}
    columns: dict[tuple[int, int | None], Tensor] = {}
    for name, stat in stats.items():
        if isinstance(stat, ColumnStatistic):
            # Sums and means of the same queries are one walk.
            known = stat.lags in columns
            found[name] = columns[stat.lags].clone() if known else work.columns(rows.lse, stat.lags)
            columns.setdefault(stat.lags, found[name])
        elif isinstance(stat, KeyStatistic):
            features = work.features_of(stat)
            found[name] = rows.features[..., features] if stat.several else rows.features[..., features.start]
        elif type(stat) in SUMS:
            found[name] = rows.sums[SUMS[type(stat)]]
        elif isinstance(stat, DistanceStatistic):
            found[name] = rows.tables[..., work.asked.distances.index(stat)]
        else:
            found[name] = _ranked(rows, stat)
    return found


def _ranked(rows: Rows, stat: Statistic) -> Tensor:
    if not isinstance(stat, TopKeys):
        return rows.top_weight[..., 0]
    best = slice(0, stat.count)
    return torch.stack((rows.top_key[..., best].to(rows.top_weight.dtype), rows.top_weight[..., best]), dim=-1)


def _differentiable_rows(work: Pass) -> Rows:
    scores, names = work.scores, work.asked.sums
    lse, features, tables, *sums = _RowPass.apply(scores.query, scores.key, scores.sink_logits, work)  # type: ignore[no-untyped-call]
    none = lse.detach()[..., None][..., :0]
    return Rows(lse, dict(zip(names, sums, strict=True)), features, tables, none, none.int())


class _RowPass(torch.autograd.Function):
    """For a loss ``L`` and linear statistics ``R_f = sum_s A phi_f``, with mass ``m = sum_s A``, entropy ``H`` and
    participation ``P``, the logits of a row get

        dL/dS = A (sum_f g_f (phi_f - R_f) + g_m (1 - m) + g_H (m - 1 - H - log A) + 2 g_P (A - P)),

    and a learned sink, whose weight is in none of the sums, the same with its own terms left out.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *_, sink, work = arguments
        rows = work.rows()
        ctx.work = work
        ctx.save_for_backward(sink, rows.lse, rows.features, rows.tables, *rows.sums.values())
        ctx.mark_non_differentiable(rows.lse)
        return (rows.lse, rows.features, rows.tables, *rows.sums.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _lse: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sink, lse, features, tables, *sums = ctx.saved_tensors
        value = dict(zip(ctx.work.asked.sums, sums, strict=True))
        of_features, of_tables, *of_sums = grads
        grad = dict(zip(value, of_sums, strict=True))
        # What every key of a row gets alike, sinks included.
        common = -(of_features * features).sum(dim=-1) - (of_tables * tables).sum(dim=-1)
        for name, factor in (("mass", 1), ("distance", 1), ("squares", 2)):
            if name in grad:
                common = common - factor * grad[name] * value[name]
        taken = 0.0 if sink is None else torch.exp(sink.to(lse.dtype) - lse)
        if "entropy" in grad:
            common = common + grad["entropy"] * (1 - taken - value["entropy"])
        constant = common + grad.get("mass", 0.0) - grad.get("entropy", 0.0)
        factors = [
            constant, _times(-1, grad.get("entropy")), _times(2, grad.get("squares")), grad.get("distance"),
            of_features, of_tables,
        ]  # fmt: skip
        of_query, of_key = ctx.work.backward(lse, factors)
        of_sink = None if sink is None else (taken * common).sum(dim=(0, 1)).to(sink.dtype)
        return of_query, of_key, of_sink, None


def _times(factor: int, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else factor * tensor
