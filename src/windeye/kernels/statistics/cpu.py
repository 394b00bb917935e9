"""The compiled route: rows in one walk over the keys with a running maximum, columns in a second one with the
normalisers of the first. Memory grows with the tokens; logits never leave the first cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from windeye.kernels import native
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    ColumnMean,
    ColumnStatistic,
    ColumnSum,
    DistanceStatistic,
    Entropy,
    FutureInfluence,
    KeyStatistic,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    Statistic,
    TopKeys,
)

MOST_TOP = 32
"""Keys that the kernel ranks per row."""

FAR = 2**40
"""A distance beyond all others."""

_SUMS: dict[type[Statistic], str] = {
    RowMass: "mass",
    Entropy: "entropy",
    Participation: "squares",
    MeanDistance: "distance",
}
_COLUMNS = (ColumnSum, ColumnMean, FutureInfluence)


def can_run(scores: Scores, stat: Statistic) -> str | None:
    """Why the kernel cannot take this statistic of these scores; None if it can."""
    if native.cpu is None:
        return native.missing
    query, key = scores.query, scores.key
    if query.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {query.device}"
    if query.dtype not in native.TYPES or key.dtype != query.dtype:
        return f"query and key must both be float32, bfloat16, float16 or float64, got {query.dtype} and {key.dtype}"
    if not isinstance(scores.relation, Runs):
        return "what a query sees differs between heads; it reads runs of keys that all heads share"
    if scores.edits:
        return "logits are edited"
    if scores.bias is not None and scores.bias.shape[2] != 1:
        return "the bias differs between queries"
    if scores.needs_grad:
        return "a gradient is asked for"
    if isinstance(stat, TopKeys) and stat.count > MOST_TOP:
        return f"it ranks at most {MOST_TOP} keys, not {stat.count}"
    if type(stat) not in (*_SUMS, MaxWeight, TopKeys, *_COLUMNS) and not isinstance(
        stat, DistanceStatistic | KeyStatistic
    ):
        return f"it has no form of {type(stat).__name__}"
    return None


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, which `can_run` has let pass."""
    work = Work(scores)
    rows = row_pass(work, [stat for stat in stats.values() if not isinstance(stat, ColumnStatistic)])
    values = {}
    for name, stat in stats.items():
        if isinstance(stat, ColumnStatistic):
            values[name] = column_pass(work, rows.lse, stat.lags, scores.rows)
        else:
            values[name] = rows.value(stat)
    return values


@dataclass
class Rows:
    """What one row pass has written, [batch, queries, heads, ...]."""

    lse: Float[Tensor, "batch queries heads"]
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Mass, entropy, squares and distance, as far as they were asked for."""
    linear: dict[Statistic, Tensor] = field(default_factory=dict)
    top_weight: Float[Tensor, "batch queries heads top"] | None = None
    top_key: Int32[Tensor, "batch queries heads top"] | None = None

    def value(self, stat: Statistic) -> Tensor:
        """The value of a statistic that was asked for."""
        if stat in self.linear:
            return self.linear[stat]
        if name := _SUMS.get(type(stat)):
            return self.sums[name]
        assert self.top_weight is not None
        assert self.top_key is not None
        if isinstance(stat, MaxWeight):
            return self.top_weight[..., 0]
        assert isinstance(stat, TopKeys)
        best = slice(0, stat.count)
        return torch.stack((self.top_key[..., best].to(self.top_weight.dtype), self.top_weight[..., best]), dim=-1)


class Work:
    """A call of the kernel, and what must outlive it."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.wide = scores.wide
        self.relation = relation = scores.relation
        assert isinstance(relation, Runs)
        query, key = scores.query.detach(), scores.key.detach()
        self.batch, self.queries, self.heads, dim = query.shape
        self.keys = key.shape[1]
        self.call = native.cpu.StatisticsCall(
            native.TYPES[query.dtype], [self.batch, self.heads, key.shape[2], dim, self.queries, self.keys],
            scores.scale, scores.softcap or 0.0, relation.offset, torch.get_num_threads(),
            os.environ.get("WINDEYE_ISA", ""),
        )  # fmt: skip
        self.alive: list[Tensor] = [query, key]
        self.call.set_inputs(*([tensor.data_ptr(), *tensor.stride()] for tensor in (query, key)))
        start, stop = self.keep(relation.start.int()), self.keep(relation.stop.int())
        self.call.set_runs(start.data_ptr(), stop.data_ptr(), *start.shape[:2])
        if scores.sink_logits is not None:
            self.call.set_sink(self.keep(scores.sink_logits.detach().to(self.wide)).data_ptr())
        if scores.bias is not None:
            bias = self.keep(scores.bias.detach()[:, :, 0].to(self.wide).expand(-1, -1, self.keys))
            strides = [stride if size > 1 else 0 for stride, size in zip(bias.stride(), bias.shape, strict=True)]
            self.call.set_bias(bias.data_ptr(), *strides[:2])

    def keep(self, tensor: Tensor) -> Tensor:
        self.alive.append(tensor.contiguous())
        return self.alive[-1]

    def empty(self, *behind: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(self.batch, self.queries, self.heads, *behind, dtype=dtype or self.wide)


def row_pass(work: Work, stats: list[Statistic]) -> Rows:
    """The normalisers, and all that is asked for beside them."""
    rows = Rows(work.empty())
    work.call.set_lse(rows.lse.data_ptr())
    rows.sums = {name: work.empty() for kind, name in _SUMS.items() if any(type(stat) is kind for stat in stats)}
    work.call.set_sums(*(_address(rows.sums.get(name)) for name in _SUMS.values()))
    written = _set_features(work, [stat for stat in stats if isinstance(stat, KeyStatistic)])
    written |= _set_tables(work, [s for s in stats if isinstance(s, DistanceStatistic) and type(s) is not MeanDistance])
    top = max(
        (stat.count if isinstance(stat, TopKeys) else 1 for stat in stats if isinstance(stat, TopKeys | MaxWeight)),
        default=0,
    )
    if top:
        rows.top_weight, rows.top_key = work.empty(top), work.empty(top, dtype=torch.int32)
        work.call.set_top(top, rows.top_weight.data_ptr(), rows.top_key.data_ptr())
    work.call.rows()
    rows.linear = written
    return rows


def column_pass(
    work: Work, lse: Tensor, lags: tuple[int, int | None], rows: Tensor | None
) -> Float[Tensor, "batch keys heads"]:
    """Sums of weights at distances ``lags`` over the queries, or over those that ``rows`` counts."""
    sums = torch.empty(work.batch, work.keys, work.heads, dtype=work.wide)
    weight = None if rows is None else work.keep(rows.to(work.wide))
    low, high = lags
    work.call.set_lse(lse.data_ptr())
    work.call.columns(_address(weight), work.queries, low, FAR if high is None else high, sums.data_ptr())
    return sums


def _set_features(work: Work, stats: list[KeyStatistic]) -> dict[Statistic, Tensor]:
    if not stats:
        return {}
    each = [stat.features(work.scores).to(work.wide) for stat in stats]
    batch = max(features.shape[0] for features in each)
    widths = [features.shape[-1] for features in each]
    values = work.keep(torch.cat([features.expand(batch, -1, -1) for features in each], dim=-1))
    sums = work.empty(sum(widths))
    stride = values.stride(0) if batch > 1 else 0
    work.call.set_features(values.data_ptr(), stride, sum(widths), sums.data_ptr())
    parts = torch.split(sums, widths, dim=-1)
    return {s: part if s.several else part[..., 0] for s, part in zip(stats, parts, strict=True)}


def _set_tables(work: Work, stats: list[DistanceStatistic]) -> dict[Statistic, Tensor]:
    if not stats:
        return {}
    # Of the distances that occur, those between which a function changes; all where no band is known.
    nearest, farthest = work.relation.offset - work.keys + 1, work.relation.offset + work.queries - 1
    bands = [stat.band or (nearest, farthest) for stat in stats]
    first = min(max(nearest, min(low for low, _ in bands)), farthest)
    last = max(min(farthest, max(high for _, high in bands)), first)
    distances = torch.arange(first, last + 1)
    values = work.keep(torch.stack([stat.phi(distances).to(work.wide) for stat in stats]))
    sums = work.empty(len(stats))
    work.call.set_tables(values.data_ptr(), len(stats), len(distances), first, sums.data_ptr())
    return dict(zip(stats, sums.unbind(-1), strict=True))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
