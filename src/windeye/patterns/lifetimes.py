"""Key lifetimes: each key is seen from its own query on until it expires. The relation depends on data, so the pattern
carries a tensor, and its bound form has one relation per batch entry and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from windeye.patterns.bound import Bound, Grid, Term
from windeye.patterns.data import DataPattern
from windeye.patterns.pattern import Pattern, check_grid
from windeye.patterns.table import AxisTable, Ints

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False, eq=False)
class Expiry(DataPattern):
    """Query ``i`` sees key ``j`` iff ``j <= i < table[..., j]``: a key lives from its own query to its expiry.

    Everything causal that forgets a key once and for all has this form: the past (``n``), a sliding window
    (``j + w``), packed documents (the end of the document), sinks (``n``), and the ``w`` best keys so far
    (`windeye.topw_expiry`). An expiry of at most ``j`` hides the key from everybody; values beyond the last query are
    as good as ``n``. Queries that are fewer than the keys are the last ones, as for `Causal`. Source: dma spec.

    ``&`` and ``|`` give an `Expiry` again: with another one, and with every pattern that is itself made of lifetimes.
    Others are refused.

    Two are equal when they hold the same tensor, whatever is in it.

    Args:
        table: int32, [keys] for all heads alike or [batch, heads, keys]. A batch of 1 is every batch entry; the number
            of heads divides that of the queries, so that a group of query heads may share a row.

    Raises:
        TypeError, ValueError: not an int32 tensor of one or three axes.

    Example:
        >>> import torch
        >>> Expiry(torch.tensor([4, 2, 2, 4], dtype=torch.int32)).bind((4,)).mask()[0, 0].int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    """

    table: torch.Tensor

    def __post_init__(self) -> None:
        import torch

        if not isinstance(self.table, torch.Tensor):
            raise TypeError(f"table must be a torch.Tensor, got {type(self.table).__name__}")
        if self.table.dtype != torch.int32:
            raise TypeError(f"table must be int32, got {self.table.dtype}; cast it with .to(torch.int32)")
        if self.table.dim() not in (1, 3):
            raise ValueError(f"table must be [keys] or [batch, heads, keys], got shape {tuple(self.table.shape)}")

    @classmethod
    def of(cls, pattern: Pattern, keys: int) -> Expiry:
        """A causal pattern of interval tables as lifetimes, for all heads alike.

        Raises:
            ValueError: it shows the future, or some key is not seen by one unbroken run of queries from its own on.

        Example:
            >>> from windeye.patterns import Sinks, Sliding
            >>> Expiry.of(Sliding(2) | Sinks(1), 5).table.tolist()
            [5, 3, 4, 5, 5]
        """
        import torch

        return cls(torch.from_numpy(_expiries(pattern, keys, causal_only=True)))

    @property
    def planes(self) -> torch.Tensor:
        """The table as [batch, heads, keys]."""
        return self.table if self.table.dim() == 3 else self.table[None, None]

    def terms(self, _grid: Grid, _grid_kv: Grid) -> tuple[Term, ...]:
        raise ValueError("Expiry has no interval table per query: the keys that a query sees do not lie side by side")

    def bind(self, grid: Sequence[int], grid_kv: Sequence[int] | None = None) -> Lifetimes:
        """The exact relation of every batch entry and head; not cached, as the table is data."""
        query = check_grid(grid, "grid")
        keys = query if grid_kv is None else check_grid(grid_kv, "grid_kv", len(query))
        if len(query) != 1:
            raise ValueError(f"Expiry is a pattern of sequences, got a grid of {len(query)} axes: {query}")
        if self.table.shape[-1] != keys[0]:
            raise ValueError(f"table holds {self.table.shape[-1]} keys but the sequence has {keys[0]}")
        return Lifetimes(query, keys, self.planes)

    def __and__(self, other: Pattern) -> Expiry:
        return self._combined(other, "minimum")

    def __or__(self, other: Pattern) -> Expiry:
        return self._combined(other, "maximum")

    def _combined(self, other: Pattern, choice: str) -> Expiry:
        import torch

        if not isinstance(other, Pattern) or (other.tables and not isinstance(other, Expiry)):
            return NotImplemented
        if isinstance(other, Expiry):
            theirs = other.table
        else:
            expiries = _expiries(other, self.table.shape[-1], causal_only=choice == "maximum")
            theirs = torch.from_numpy(expiries).to(self.table.device)
        return Expiry(getattr(torch, choice)(self.table, theirs))


class Lifetimes(Bound):
    """Key lifetimes bound to a sequence: what `Bound` offers, with one relation per batch entry and head of the table.

    Counts are sums over all of them. There are no interval tables: what needs them says so.

    Example:
        >>> import torch
        >>> bound = Expiry(torch.tensor([[[3, 2, 3], [1, 2, 3]]], dtype=torch.int32)).bind((3,))
        >>> bound.pairs(), bound.keys_of(2, head=0), bound.keys_of(2, head=1)
        (8, [0, 2], [2])
    """

    planes: torch.Tensor

    def __init__(self, grid: Grid, grid_kv: Grid, planes: torch.Tensor) -> None:
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "grid_kv", grid_kv)
        object.__setattr__(self, "planes", planes)

    @property
    def terms(self) -> tuple[Term, ...]:
        raise ValueError(
            "lifetimes of keys have no interval tables per query, so nothing that counts tiles or places relative "
            "positions applies to them; inverse() gives the table of one head, with keys as rows"
        )

    @property
    def relations(self) -> int:
        return prod(self.planes.shape[:2])

    def mask(self) -> torch.Tensor:
        """The dense relation, bool [batch, heads, queries, keys]. Quadratic memory."""
        return visible(self.planes, self.tokens)

    def keys_of(self, query: int | tuple[int, ...], batch: int = 0, head: int = 0) -> list[int]:
        """Keys that one query of one head sees, ascending. Errors as `Bound.coordinates`."""
        position = self.coordinates(query)[0] + self.tokens_kv - self.tokens
        expiry = self.planes[batch, head, : max(0, position + 1)]
        return [int(key) for key in (expiry > position).nonzero()[:, 0]]

    def pairs(self) -> int:
        import torch

        keys = torch.arange(self.tokens_kv, device=self.planes.device)
        born = keys.clamp(min=self.tokens_kv - self.tokens)
        return int((self.planes.clamp(max=self.tokens_kv) - born).clamp(min=0).sum())

    def inverse(self, batch: int = 0, head: int = 0) -> Bound:
        """The reverse relation of one head: for each key the queries that see it, which is one interval table."""
        offset = self.tokens_kv - self.tokens
        born = np.arange(self.tokens_kv, dtype=np.int64)
        start = np.clip(born - offset, 0, self.tokens)
        stop = np.clip(self.planes[batch, head].cpu().numpy().astype(np.int64) - offset, start, self.tokens)
        return Bound(self.grid_kv, self.grid, ((AxisTable(start, stop, 1, self.tokens),),))

    def mask_mod(
        self, device: str | torch.device = "cpu", heads: int | None = None
    ) -> Callable[[Any, Any, Any, Any], torch.Tensor]:
        """The relation as FlexAttention's ``mask_mod``, for ``heads`` query heads; default one per row of the table."""
        planes = self.planes.to(device)
        sharing = 1 if heads is None else heads // planes.shape[1]
        one_batch, offset = planes.shape[0] == 1, self.tokens_kv - self.tokens

        def mask_mod(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
            position = query + offset
            return (key <= position) & (position < planes[0 if one_batch else batch, head // sharing, key])

        return mask_mod

    def draw(self, path: str | None = None, batch: int = 0, head: int = 0, **options: Any) -> str:
        """Draw the relation of one head. See `windeye.patterns.draw`."""
        return self.inverse(batch, head).inverse().draw(path, **options)


def visible(planes: torch.Tensor, queries: int) -> torch.Tensor:
    """Which queries see which keys, bool [batch, heads, queries, keys]; the only place where the rule is in torch."""
    import torch

    keys = planes.shape[-1]
    key = torch.arange(keys, device=planes.device)
    position = torch.arange(queries, device=planes.device)[:, None] + (keys - queries)
    return (key <= position) & (position < planes[:, :, None, :])


def _expiries(pattern: Pattern, keys: int, *, causal_only: bool) -> np.ndarray:
    """The expiry of each key, int32, from the reverse tables of a pattern; pairs of the future are left out."""
    if pattern.tables:
        raise TypeError(f"{pattern!r} depends on data; its table is what you look for")
    refusal = f"{pattern.spec} cannot be told as lifetimes of keys"
    born = np.arange(keys, dtype=np.int64)
    reverse = [table for term in pattern.bind((keys,)).inverse().terms for table in term[0].unwrapped()]
    runs: list[tuple[Ints, Ints]] = []
    for table in reverse:
        if table.step > 1 and (table.counts() > 1).any():
            raise ValueError(f"{refusal}: the queries that see a key are {table.step} apart")
        live = table.stop > table.start
        if causal_only and (live & (table.start < born)).any():
            raise ValueError(f"{refusal}: it shows the future; combine it with & Causal() first")
        start, stop = np.maximum(table.start, born), np.where(table.step > 1, table.start + 1, table.stop)
        runs.append((start, np.where(live, stop, start)))
    expiry = born.copy()
    for _ in runs:  # each round joins at least one more run to the unbroken one, or none is left to join
        for start, stop in runs:
            expiry = np.where((start <= expiry) & (stop > expiry), stop, expiry)
    if any(((stop > start) & (stop > expiry)).any() for start, stop in runs):
        raise ValueError(f"{refusal}: some key is seen again after a query that does not see it")
    return expiry.astype(np.int32)
