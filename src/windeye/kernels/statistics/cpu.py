"""The compiled route, and its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windeye.kernels import native
from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.compiled import MOST_TOP, SUMS, Asked, Rows, Work, ranks
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    ColumnStatistic,
    DistanceStatistic,
    KeyStatistic,
    Statistic,
    TopKeys,
)

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
    linear = isinstance(stat, DistanceStatistic | KeyStatistic)
    if not linear and type(stat) not in (*SUMS, *_COLUMNS) and not ranks(stat):
        return f"it has no form of {type(stat).__name__}"
    if isinstance(stat, TopKeys) and stat.count > MOST_TOP:
        return f"it ranks at most {MOST_TOP} keys, not {stat.count}"
    if not scores.needs_grad:
        return None
    if scores.bias is not None and scores.bias.requires_grad:
        return "it has no gradient of the bias"
    if not linear and type(stat) not in SUMS:
        return f"it has no gradient of {type(stat).__name__}"
    return None


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, which `can_run` has let pass."""
    asked = Asked(stat for stat in stats.values() if not isinstance(stat, ColumnStatistic))
    work = Work(scores, asked)
    rows = _differentiable_rows(work) if scores.needs_grad else work.rows()
    values = {}
    for name, stat in stats.items():
        if isinstance(stat, ColumnStatistic):
            values[name] = work.columns(rows.lse, stat.lags)
        elif isinstance(stat, KeyStatistic):
            features = work.features_of(stat)
            values[name] = rows.features[..., features] if stat.several else rows.features[..., features.start]
        elif type(stat) in SUMS:
            values[name] = rows.sums[SUMS[type(stat)]]
        elif isinstance(stat, DistanceStatistic):
            values[name] = rows.tables[..., asked.distances.index(stat)]
        else:
            values[name] = _ranked(rows, stat)
    return values


def _ranked(rows: Rows, stat: Statistic) -> Tensor:
    if not isinstance(stat, TopKeys):
        return rows.top_weight[..., 0]
    best = slice(0, stat.count)
    return torch.stack((rows.top_key[..., best].to(rows.top_weight.dtype), rows.top_weight[..., best]), dim=-1)


def _differentiable_rows(work: Work) -> Rows:
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
