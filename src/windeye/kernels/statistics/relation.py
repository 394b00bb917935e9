"""Who sees whom, as statistics read it: runs of keys for each query, or a mask of some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from windeye.patterns import AxisTable, Bound
from windeye.patterns.lifetimes import visible

_EVERY = slice(None)
SLAB = 2**24
"""Entries of a mask that are looked at in one go."""


class Relation(Protocol):
    """Queries stand at ``offset``, ``offset + 1``, ... among the keys: distances to keys count from there."""

    @property
    def queries(self) -> int: ...

    @property
    def keys(self) -> int: ...

    @property
    def offset(self) -> int: ...

    def visible(self, rows: slice, keys: slice = _EVERY) -> Bool[Tensor, "batch heads rows keys"]:
        """Whether these queries see these keys; batch and heads are 1 where all are alike."""
        ...


@dataclass(frozen=True, eq=False)
class Runs:
    """Query ``q`` sees the keys ``start[b, r, q] <= s < stop[b, r, q]`` of every run ``r``.

    Runs of a query are disjoint and ascend; one with ``stop <= start`` is empty. Memory grows with the queries.
    """

    start: Int32[Tensor, "batch runs queries"]
    stop: Int32[Tensor, "batch runs queries"]
    keys: int
    offset: int

    @property
    def queries(self) -> int:
        return self.start.shape[-1]

    @classmethod
    def of_bound(cls, bound: Bound, device: torch.device | str = "cpu") -> Runs:
        """The runs of a pattern of interval tables; tokens are numbered row-major."""
        offset = bound.tokens_kv - bound.tokens if bound.rank == 1 else 0
        tables = [table for term in bound.terms for table in term[0].unwrapped()] if bound.rank == 1 else []
        if bound.rank == 1 and all(table.step == 1 for table in tables):
            start, stop = _disjoint(tables, bound.tokens)
            return cls(start[None].to(device), stop[None].to(device), bound.tokens_kv, offset)
        masks = (torch.from_numpy(_rows_of(bound, rows))[None] for rows in _slabs(bound.tokens, bound.tokens_kv))
        return cls._of_slabs(masks, bound.tokens_kv, offset, device)

    @classmethod
    def of_mask(cls, mask: Bool[Tensor, "batch queries keys"], offset: int | None = None) -> Runs:
        """The runs of a mask that is at hand; ``offset`` as if the last query stood at the last key, if not given."""
        batch, queries, keys = mask.shape
        slabs = (mask[:, rows] for rows in _slabs(queries, batch * keys))
        return cls._of_slabs(slabs, keys, keys - queries if offset is None else offset, mask.device)

    @classmethod
    def _of_slabs(
        cls, masks: Iterator[Bool[Tensor, "batch rows keys"]], keys: int, offset: int, device: torch.device | str
    ) -> Runs:
        pieces = [_runs_of(mask) for mask in masks]
        most = max(piece.shape[2] for piece in pieces)
        bounds = torch.cat([F.pad(piece, (0, 0, 0, most - piece.shape[2])) for piece in pieces], dim=-1).to(device)
        return cls(bounds[0], bounds[1], keys, offset)

    def visible(self, rows: slice, keys: slice = _EVERY) -> Bool[Tensor, "batch 1 rows keys"]:
        """As `Relation.visible`."""
        key = torch.arange(self.keys, device=self.start.device)[keys]
        start, stop = self.start[:, :, rows, None], self.stop[:, :, rows, None]
        seen = torch.zeros(start.shape[0], start.shape[2], len(key), dtype=torch.bool, device=key.device)
        for run in range(start.shape[1]):
            seen |= (key >= start[:, run]) & (key < stop[:, run])
        return seen[:, None]

    def without(self, hidden: Bool[Tensor, "batch keys"]) -> Runs:
        """The same relation with keys hidden from every query."""
        counts = (~hidden).sum(dim=-1)
        first = (~hidden).int().argmax(dim=-1)
        last = first + counts
        place = torch.arange(self.keys, device=hidden.device)
        if bool((hidden == ((place < first[:, None]) | (place >= last[:, None]))).all()):
            low, high = first[:, None, None].int(), last[:, None, None].int()
            return Runs(self.start.maximum(low), self.stop.minimum(high), self.keys, self.offset)
        batch = max(hidden.shape[0], self.start.shape[0])
        slabs = (self.visible(rows)[:, 0] & ~hidden[:, None] for rows in _slabs(self.queries, batch * self.keys))
        return Runs._of_slabs(slabs, self.keys, self.offset, hidden.device)

    def of_queries(self, begin: int, end: int) -> Runs:
        """The relation of some of the queries."""
        return Runs(self.start[..., begin:end], self.stop[..., begin:end], self.keys, self.offset + begin)

    def seen_by(self, rows: Bool[Tensor, "batch queries"] | None) -> Int[Tensor, "batch keys"]:
        """How many of the queries, or of those that ``rows`` counts, see each key."""
        start, stop = self.start, self.stop
        counted = (stop > start).long()
        if rows is not None:
            counted = counted * rows[:, None]
        start, stop = (t.expand(counted.shape).flatten(1).long() for t in (start, stop))
        change = torch.zeros(counted.shape[0], self.keys + 1, dtype=torch.long, device=start.device)
        change.scatter_add_(1, start, counted.flatten(1)).scatter_add_(1, stop, -counted.flatten(1))
        return change.cumsum(dim=1)[:, :-1]


class Tabled(Runs):
    """The runs of a pattern of interval tables, without the keys that are hidden. They are written out when they
    are read first: kernels that know tables never do."""

    def __init__(
        self, bound: Bound, device: torch.device | str = "cpu", hidden: Bool[Tensor, "batch keys"] | None = None
    ) -> None:
        offset = bound.tokens_kv - bound.tokens if bound.rank == 1 else 0
        known = {"bound": bound, "device": torch.device(device), "hidden": hidden}
        for name, value in {**known, "keys": bound.tokens_kv, "offset": offset}.items():
            object.__setattr__(self, name, value)

    bound: Bound
    device: torch.device
    hidden: Bool[Tensor, "batch keys"] | None

    @property
    def queries(self) -> int:
        return self.bound.tokens

    @cached_property
    def _runs(self) -> Runs:
        runs = Runs.of_bound(self.bound, self.device)
        return runs if self.hidden is None else runs.without(self.hidden)

    @property
    def start(self) -> Int32[Tensor, "batch runs queries"]:
        return self._runs.start

    @property
    def stop(self) -> Int32[Tensor, "batch runs queries"]:
        return self._runs.stop

    def without(self, hidden: Bool[Tensor, "batch keys"]) -> Tabled:
        """As `Runs.without`."""
        return Tabled(self.bound, self.device, hidden if self.hidden is None else self.hidden | hidden)

    def seen_by(self, rows: Bool[Tensor, "batch queries"] | None) -> Int[Tensor, "batch keys"]:
        """As `Runs.seen_by`; a product of tables is counted axis by axis, since runs of a grid are many."""
        if self.bound.rank == 1 or len(self.bound.terms) != 1:
            return super().seen_by(rows)
        found = _seen_by_all(self.bound, self.device) if rows is None else _product(self.bound, rows).to(self.device)
        return found if self.hidden is None else found.masked_fill(self.hidden, 0)


@dataclass(frozen=True, eq=False)
class Masked:
    """A relation that is a mask; it may differ between heads. Quadratic, as what it was made from."""

    mask: Bool[Tensor, "batch heads queries keys"]
    offset: int

    @property
    def queries(self) -> int:
        return self.mask.shape[2]

    @property
    def keys(self) -> int:
        return self.mask.shape[3]

    def visible(self, rows: slice, keys: slice = _EVERY) -> Bool[Tensor, "batch heads rows keys"]:
        """As `Relation.visible`."""
        return self.mask[:, :, rows, keys]


@dataclass(frozen=True, eq=False)
class LiveKeys:
    """Key ``j`` is seen by the queries ``j <= i < expiry[b, h, j]``, unless it is hidden."""

    expiry: Int32[Tensor, "batch heads keys"]
    queries: int
    hidden: Bool[Tensor, "batch keys"] | None = None
    offset: int = 0

    @property
    def keys(self) -> int:
        return self.expiry.shape[-1]

    def visible(self, rows: slice, keys: slice = _EVERY) -> Bool[Tensor, "batch heads rows keys"]:
        """As `Relation.visible`."""
        seen = visible(self.expiry, self.queries)[:, :, rows, keys]
        return seen if self.hidden is None else seen & ~self.hidden[:, None, None, keys]


def seen_at_all(relation: Relation) -> Bool[Tensor, "batch keys"]:
    """Keys that some query sees, of any head."""
    if isinstance(relation, Runs):
        return relation.seen_by(None) > 0
    return relation.visible(slice(0, relation.queries)).any(dim=2).any(dim=1)


def _product(bound: Bound, rows: Bool[Tensor, "batch queries"]) -> Int[Tensor, "batch keys"]:
    """How many of the queries see each key, where every axis has one table; on the CPU, where products of matrices are
    the same in every mode."""
    many = rows.cpu().to(torch.float64).reshape(-1, *bound.grid)
    for axis, table in enumerate(bound.terms[0], start=1):
        many = torch.tensordot(many, torch.from_numpy(table.mask()).double(), dims=([axis], [0])).movedim(-1, axis)
    return many.flatten(1).long()


@lru_cache(maxsize=64)
def _seen_by_all(bound: Bound, device: torch.device) -> Int[Tensor, "1 keys"]:
    return _product(bound, torch.ones(1, bound.tokens, dtype=torch.bool)).to(device)


def _disjoint(tables: list[AxisTable], queries: int) -> tuple[Int32[Tensor, "runs queries"], Int32[Tensor, ...]]:
    """The union of plain intervals as disjoint ascending ones."""
    if not tables:
        empty = torch.zeros(1, queries, dtype=torch.int32)
        return empty, empty
    start = np.stack([np.where(t.stop > t.start, t.start, t.length) for t in tables])
    stop = np.stack([np.where(t.stop > t.start, t.stop, 0) for t in tables])
    order = np.argsort(start, axis=0, kind="stable")
    start, stop = np.take_along_axis(start, order, 0), np.take_along_axis(stop, order, 0)
    for later in range(1, len(tables)):
        # What an earlier interval has covered is cut off; touching ones stay apart, which is as good.
        start[later] = np.maximum(start[later], stop[:later].max(axis=0))
    bounds = torch.from_numpy(np.stack([start, np.maximum(stop, start)])).int()
    return bounds[0], bounds[1]


def _runs_of(mask: Bool[Tensor, "batch rows keys"]) -> Int32[Tensor, "2 batch runs rows"]:
    """First and last-plus-one key of each run of neighbours; ``(0, 0)`` where a row has fewer than others."""
    batch, rows, _ = mask.shape
    padded = F.pad(mask, (1, 1))
    row, edge = (padded[..., 1:] != padded[..., :-1]).flatten(0, 1).nonzero(as_tuple=True)
    row, start, stop = row[::2].contiguous(), edge[::2], edge[1::2]
    number = torch.arange(row.shape[0], device=mask.device) - torch.searchsorted(row, row)
    runs = max(1, int(number.max()) + 1) if row.numel() else 1
    bounds = torch.zeros(2, batch * rows, runs, dtype=torch.int32, device=mask.device)
    bounds[0, row, number], bounds[1, row, number] = start.int(), stop.int()
    return bounds.view(2, batch, rows, runs).transpose(2, 3)


def _rows_of(bound: Bound, rows: slice) -> np.ndarray:
    """Some rows of the dense relation."""
    at = np.unravel_index(np.arange(rows.start, rows.stop), bound.grid)
    seen = np.zeros((rows.stop - rows.start, bound.tokens_kv), dtype=np.bool_)
    key = np.unravel_index(np.arange(bound.tokens_kv), bound.grid_kv)
    for term in bound.terms:
        allowed = np.ones_like(seen)
        for table, query, place in zip(term, at, key, strict=True):
            allowed &= table.allowed(query[:, None], place[None])
        seen |= allowed
    return seen


def _slabs(rows: int, width: int) -> list[slice]:
    """Rows in ranges of at most `SLAB` entries."""
    step = max(1, SLAB // max(1, width))
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
