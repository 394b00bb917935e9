"""Calls of the compiled module: rows in one walk over the keys with a running maximum, columns in a second one with the
normalisers of the first, gradients from the same normalisers. Memory grows with the tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.kernels import native
from windeye.kernels.statistics.passes import SUMS, Pass, Rows
from windeye.kernels.statistics.relation import Runs

FAR = 2**40
"""A distance beyond all others."""


@dataclass(eq=False)
class Work(Pass):
    """One problem as the module takes it, and what must outlive the call."""

    alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        scores, relation = self.scores, self.scores.relation
        assert isinstance(relation, Runs)
        query, key = scores.query.detach(), scores.key.detach()
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
        """As `Pass.rows`."""
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
        """As `Pass.columns`."""
        batch, queries, heads = self.shape
        sums = torch.empty(batch, self.scores.relation.keys, heads, dtype=self.wide)
        counted = None if self.scores.rows is None else self._keep(self.scores.rows.to(self.wide))
        low, high = lags
        self.call.set_lse(lse.data_ptr())
        self.call.columns(_address(counted), queries, low, FAR if high is None else high, sums.data_ptr())
        return sums

    def backward(self, lse: Tensor, factors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """As `Pass.backward`."""
        scores = self.scores
        query, key = torch.empty_like(scores.query), torch.empty_like(scores.key)
        given = [None if factor is None else self._keep(factor) for factor in factors]
        self._set_linear(None, None)
        self.call.set_lse(lse.data_ptr())
        self.call.backward([_address(factor) for factor in given], _strides(query), _strides(key))
        return query, key

    def _set_linear(self, feature_sums: Tensor | None, table_sums: Tensor | None) -> None:
        features = self.features
        stride = features.stride(0) if features.shape[0] > 1 else 0
        self.call.set_features(features.data_ptr(), stride, features.shape[-1], _address(feature_sums))
        if self.asked.distances:
            tables = self._keep(self.tables)
            self.call.set_tables(tables.data_ptr(), *tables.shape, self.distances.start, _address(table_sums))

    def _keep(self, tensor: Tensor) -> Tensor:
        self.alive.append(tensor.contiguous())
        return self.alive[-1]


def _strides(tensor: Tensor) -> list[int]:
    return [tensor.data_ptr(), *tensor.stride()]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
