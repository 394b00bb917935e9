"""Launching the kernels: sizes of boxes, what they take, and what they are compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.softmax.triton.arguments import Side, View
from windeye.kernels.softmax.triton.launch import LOG2E
from windeye.kernels.softmax.triton.sizes import Sizes, width
from windeye.kernels.statistics.passes import SUMS, Pass, Rows
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.triton.arguments import (
    Bias,
    Features,
    Lags,
    Logits,
    Number,
    Pulls,
    Sums,
    Tables,
    Visits,
)
from windeye.kernels.statistics.triton.columns import column_sums
from windeye.kernels.statistics.triton.gradients import grad_key, grad_query
from windeye.kernels.statistics.triton.sums import row_sums
from windeye.kernels.statistics.triton.visits import tables_of, visits

FAR = 2**30
"""A distance beyond all others."""
MOST_FEATURES = 64
"""Functions of the key at a time: more take several walks forward, several products backward."""


def sizes(scores: Scores, *, backward: bool) -> Sizes:
    """Boxes for which the compiler keeps to shared memory, and to registers as far as it can; ``backward`` for columns,
    too. Wide rows take smaller ones, and float32, whose products are three, smaller ones than half types."""
    bytes_ = scores.query.dtype.itemsize
    row, half = width(scores.query.shape[-1]) * bytes_, bytes_ == 2
    if row > 512:
        return Sizes(16, 16, 4, 1)
    if backward:
        return Sizes(128, 32, 8, 2) if half and row <= 256 else Sizes(32, 32, 8, 1)
    if half:
        return Sizes(128, 64, 8, 3) if row <= 256 else Sizes(64, 32, 8, 2)
    return Sizes(64, 32, 8, 2) if row <= 256 else Sizes(32, 32, 8, 1)


@dataclass(eq=False)
class Work(Pass):
    """One problem as the kernels take it."""

    known: dict[tuple[int, int], tuple[Visits, dict[str, Any]]] = field(default_factory=dict)
    """The relation, by sizes of boxes."""

    def rows(self) -> Rows:
        """As `Pass.rows`."""
        asked, count = self.asked, self.features.shape[-1]
        found = Rows(
            self._empty(), {name: self._empty() for name in asked.sums}, self._empty(count),
            self._empty(len(asked.distances)), self._empty(asked.top), self._empty(asked.top, dtype=torch.int32),
        )  # fmt: skip
        if found.lse.numel() == 0:
            return found
        if count <= MOST_FEATURES:
            self._walk(found, self.features)
        else:
            # The first walk does everything with some of the features, the others the rest of them.
            parts = []
            for first in range(0, count, MOST_FEATURES):
                features = self.features[..., first : first + MOST_FEATURES].contiguous()
                part = replace(found, sums={} if first else found.sums, features=self._empty(features.shape[-1]))
                self._walk(part, features, more=first > 0)
                parts.append(part.features)
            torch.cat(parts, dim=-1, out=found.features)
        return _ordered(found) if asked.keyed else found

    def _walk(self, found: Rows, features: Tensor, *, more: bool = False) -> None:
        """One walk over the keys; ``more``: of features only."""
        scores, asked = self.scores, self.asked
        batch, _, heads = self.shape
        visited, options = self._compiled(backward=False)
        options |= self._linear_options(features.shape[-1])
        if more:
            options["TABLES"] = 0
        top = asked.top if asked.keyed and not more else 0
        most = found.top_weight if asked.top and not asked.keyed and not more else None
        sink = None if scores.sink_logits is None else scores.sink_logits.detach().to(self.wide).contiguous()
        mass, entropy, squares, distance = (found.sums.get(name) for name in SUMS.values())
        sums = Sums(
            found.lse, mass, entropy, squares, distance, most, found.features, found.tables, found.top_weight,
            found.top_key,
        )  # fmt: skip
        with self._on_device():
            row_sums[(visited.queries.boxes * batch * heads,)](
                *self._inputs(visited), sink, visited, *self._linear(features), sums, *self._heads,
                TABLE_WIDTH=_power(options["TABLES"]), TOP=top, TOP_WIDTH=_power(top), **options,
            )  # fmt: skip

    def columns(self, lse: Tensor, lags: tuple[int, int | None]) -> Float[Tensor, "batch keys heads"]:
        """As `Pass.columns`."""
        scores = self.scores
        batch, _, heads = self.shape
        sums = torch.empty(batch, scores.relation.keys, heads, dtype=self.wide, device=scores.query.device)
        if 0 in (sums.numel(), scores.query.numel()):
            return sums.zero_()
        counted = None if scores.rows is None else scores.rows.contiguous().view(torch.uint8)
        low, high = (max(-FAR, min(FAR, FAR if lag is None else lag)) for lag in lags)
        counts = None if (low, high) == (-FAR, FAR) else Lags(low, high)
        visited, options = self._compiled(backward=True)
        with self._on_device():
            column_sums[(visited.keys.boxes * batch * heads,)](
                *self._inputs(visited), visited, lse.contiguous(), counted, counts, sums, *self._heads, **options
            )
        return sums

    def backward(self, lse: Tensor, factors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """As `Pass.backward`."""
        scores = self.scores
        of_query, of_key = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (scores.query, scores.key))
        batch, _, heads = self.shape
        if 0 in (scores.query.numel(), scores.key.numel()):
            return of_query.zero_(), of_key.zero_()
        visited, options = self._compiled(backward=True)
        count = self.features.shape[-1]
        options |= self._linear_options(min(count, MOST_FEATURES)) | {"FEATURE_PARTS": -(-count // MOST_FEATURES)}
        given = [None if factor is None else factor.contiguous() for factor in factors]
        pulls = Pulls(lse.contiguous(), *given)  # type: ignore[arg-type]
        inputs = (*self._inputs(visited), visited, *self._linear(self.features), pulls, _number(scores.scale))
        with self._on_device():
            grad_query[(visited.queries.boxes * batch * heads,)](*inputs, of_query, *self._heads, **options)
            grad_key[(visited.keys.boxes * batch * scores.key.shape[2],)](*inputs, of_key, *self._heads, **options)
        return of_query, of_key

    def _compiled(self, *, backward: bool) -> tuple[Visits, dict[str, Any]]:
        """The relation in boxes, what kernels are compiled for, and how they are launched."""
        scores, relation = self.scores, self.scores.relation
        assert isinstance(relation, Runs)
        chosen = sizes(scores, backward=backward)
        size = chosen.queries, chosen.keys
        if size not in self.known:
            self.known[size] = visits(relation, *size)
        visited, options = self.known[size]
        dim = scores.query.shape[-1]
        return visited, {
            **options, "head_dim": dim, "WIDTH": width(dim), "PRECISION": precision(scores),
            "WIDE": tl.float64 if self.wide == torch.float64 else tl.float32, "num_warps": chosen.warps,
            "num_stages": chosen.stages,
            "enable_fp_fusion": True,  # Triton is about to change what it does by itself
        }  # fmt: skip

    def _inputs(self, visited: Visits) -> tuple[View, View, Logits]:
        """Queries, keys, and what becomes of their products."""
        scores = self.scores
        query, key, cap = scores.query.detach(), scores.key.detach(), scores.softcap
        bias = None
        if scores.bias is not None:
            numbers = scores.bias.detach()[:, :, 0].to(self.wide).expand(-1, -1, key.shape[1]).contiguous()
            strides = [stride if size > 1 else 0 for stride, size in zip(numbers.stride(), numbers.shape, strict=True)]
            bias = Bias(numbers, *strides[:2])
        tabled = tables_of(scores.relation)  # type: ignore[arg-type]
        hidden = None if tabled is None or tabled.hidden is None else tabled.hidden
        if hidden is not None:
            hidden = hidden.expand(scores.batch, -1).contiguous().view(torch.uint8)
        logits = Logits(
            _number(scores.scale * LOG2E if cap is None else scores.scale / cap),
            None if cap is None else _number(cap * LOG2E), bias, hidden, scores.relation.offset,
        )  # fmt: skip
        return _view(query, visited.queries), _view(key, visited.keys), logits

    @property
    def _heads(self) -> tuple[int, int]:
        """How many, and how many share keys."""
        heads = self.shape[2]
        return heads, heads // self.scores.key.shape[2]

    def _linear(self, features: Tensor) -> tuple[Features, Tables | None]:
        """Functions of the key, and of the distance."""
        stride = features.stride(0) if features.shape[0] > 1 else 0
        tables = None
        if self.asked.distances:
            tables = Tables(self.tables.contiguous(), self._ends, self.distances.start, self.tables.shape[1])
        return Features(features, stride, features.shape[-1]), tables

    @cached_property
    def _ends(self) -> Tensor:
        """[tables, 2]: up to which distance a table is as at its beginning, and from where on as at its end."""
        tables, first = self.tables, self.distances.start
        rising = (tables == tables[:, :1]).long().cumprod(dim=1).sum(dim=1)
        falling = (tables == tables[:, -1:]).long().flip(1).cumprod(dim=1).sum(dim=1)
        low = (first + rising - 1).masked_fill(rising == tables.shape[1], FAR)
        return torch.stack((low, first + tables.shape[1] - falling), dim=1).int()

    def _linear_options(self, features: int) -> dict[str, Any]:
        return {
            "FEATURE_WIDTH": width(features) if features else 1, "TABLES": len(self.asked.distances),
            "SUM_PRECISION": "double" if self.wide == torch.float64 else "tf32x3",
        }  # fmt: skip

    def _on_device(self) -> AbstractContextManager[Any]:
        """Launches go to the current device, which need not be that of the tensors."""
        device = self.scores.query.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def precision(scores: Scores) -> str:
    """How tiles are multiplied: half types as they are, float32 as three TF32 products, as exact as float32."""
    query = scores.query
    if query.dtype == torch.float64:
        return "double"
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return "wide"
    return "tf32x3" if query.dtype == torch.float32 else "tf32"


def _ordered(found: Rows) -> Rows:
    """The heaviest first, of equal ones the first key; -1 where there is no key."""
    key, order = found.top_key.sort(dim=-1)
    weight, again = found.top_weight.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    key = key.gather(-1, again)
    return replace(found, top_weight=weight, top_key=key.masked_fill(key >= FAR, -1))


def _number(number: float) -> Number:
    high = float(np.float32(number))
    return Number(high, number - high)


def _power(count: int) -> int:
    """The power of two that holds so many."""
    return 1 << max(count - 1, 0).bit_length()


def _view(tensor: Tensor, side: Side) -> View:
    """Tokens are flat; the three axes are those of the side."""
    batch, token, head, dim = tensor.stride()
    return View(tensor, batch, token * side.length1 * side.length2, token * side.length2, token, head, dim)
