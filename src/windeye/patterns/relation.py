"""A dense relation: a mask that says for every query and key whether it is seen. The most general pattern and the
dearest one; like lifetimes it carries a tensor, and its bound form has one relation per batch entry and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from windeye.patterns.bound import Bound, Grid, Term
from windeye.patterns.data import DataPattern
from windeye.patterns.pattern import Pattern, check_grid
from windeye.patterns.table import runs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False, eq=False)
class Allowed(DataPattern):
    """Query ``i`` sees key ``j`` iff ``mask[..., i, j]``: any relation, one for each batch entry and head.

    For relations that have no other form, such as neighbourhoods on a graph that differs from prompt to prompt. **The
    mask is quadratic**: one byte per pair is held, read on every call and kept for the backward pass (16,384 tokens
    are 256 MiB for each relation), and every pair is computed, seen or not. What has a table form (`Sliding`,
    `Documents`, `Sinks`, their combinations) or lifetimes (`Expiry`) is better told that way.

    ``&`` and ``|`` combine with every pattern, also with `Expiry`, and give an `Allowed` again. Two are equal when they
    hold the same tensor, see `Expiry`.

    Args:
        mask: bool, [queries, keys] for all alike or [batch, heads, queries, keys]. A batch of 1 is every batch entry;
            the number of heads divides that of the queries, so that a group of query heads may share a relation.

    Raises:
        TypeError, ValueError: not a bool tensor of two or four axes.

    Example:
        >>> import torch, windeye
        >>> mask = torch.tensor([[True, False, False], [False, False, False], [True, False, True]])
        >>> q = torch.randn(1, 3, 2, 8)
        >>> out = windeye.attend(q, q, q, Allowed(mask))
        >>> torch.equal(out[:, 0], q[:, 0]), out[:, 1].any().item()
        (True, False)
        >>> (Allowed(mask) | windeye.Sliding(2)).bind((3,)).pairs()
        6
    """

    mask: torch.Tensor

    def __post_init__(self) -> None:
        import torch

        if not isinstance(self.mask, torch.Tensor):
            raise TypeError(f"mask must be a torch.Tensor, got {type(self.mask).__name__}")
        if self.mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True is seen), got {self.mask.dtype}")
        if self.mask.dim() not in (2, 4):
            raise ValueError(
                f"mask must be [queries, keys] or [batch, heads, queries, keys], got shape {tuple(self.mask.shape)}"
            )

    @property
    def planes(self) -> torch.Tensor:
        """The mask as [batch, heads, queries, keys]."""
        return self.mask if self.mask.dim() == 4 else self.mask[None, None]

    def bind(self, grid: Sequence[int], grid_kv: Sequence[int] | None = None) -> Relations:
        """The relation of every batch entry and head; not cached, as the mask is data."""
        query = check_grid(grid, "grid")
        keys = query if grid_kv is None else check_grid(grid_kv, "grid_kv", len(query))
        if len(query) != 1:
            raise ValueError(f"Allowed is a pattern of sequences, got a grid of {len(query)} axes: {query}")
        if tuple(self.mask.shape[-2:]) != (*query, *keys):
            queries, seen = self.mask.shape[-2:]
            raise ValueError(
                f"mask holds {queries} queries and {seen} keys but the sequence has {query[0]} and {keys[0]}"
            )
        return Relations(query, keys, self.planes)

    def __and__(self, other: Pattern) -> Allowed:
        return self._combined(other, "logical_and")

    def __or__(self, other: Pattern) -> Allowed:
        return self._combined(other, "logical_or")

    __rand__, __ror__ = __and__, __or__

    def _combined(self, other: Pattern, choice: str) -> Allowed:
        import torch

        if not isinstance(other, Pattern):
            return NotImplemented
        queries, keys = self.mask.shape[-2:]
        ours, theirs = self.planes, other.bind((queries,), (keys,)).mask().to(self.mask.device)
        if theirs.dim() == 4:
            ours, theirs = _alike(ours, theirs)
        elif self.mask.dim() == 2:
            ours = self.mask
        return Allowed(getattr(torch, choice)(ours, theirs))


def _alike(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two stacks of relations with as many heads: those of the fewer are shared by groups."""
    few, many = sorted((first.shape[1], second.shape[1]))
    if few == 0 or many % few:
        raise ValueError(f"relations of {first.shape[1]} and {second.shape[1]} heads cannot be combined")
    shared = (relations.repeat_interleave(many // relations.shape[1], dim=1) for relations in (first, second))
    ours, theirs = shared
    return ours, theirs


class Relations(Bound):
    """Dense relations bound to a sequence: what `Bound` offers, with one relation per batch entry and head of the mask.

    Counts are sums over all of them.

    Example:
        >>> import torch
        >>> bound = Allowed(torch.tensor([[True, False, True], [False, True, True]])).bind((2,), (3,))
        >>> bound.pairs(), bound.keys_of(0), bound.head().inverse().keys_of(2)
        (4, [0, 2], [0, 1])
    """

    planes: torch.Tensor

    def __init__(self, grid: Grid, grid_kv: Grid, planes: torch.Tensor) -> None:
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "grid_kv", grid_kv)
        object.__setattr__(self, "planes", planes)

    @property
    def terms(self) -> tuple[Term, ...]:
        raise ValueError(
            "a dense relation per batch entry and head has no interval tables for all; head() gives those of one"
        )

    @property
    def relations(self) -> int:
        return prod(self.planes.shape[:2])

    def mask(self) -> torch.Tensor:
        """The dense relation, bool [batch, heads, queries, keys]."""
        return self.planes

    def head(self, batch: int = 0, head: int = 0) -> Bound:
        """The relation of one head as interval tables of row-major tokens: as many terms as the most broken row has
        runs."""
        tables = runs(self.planes[batch, head].cpu().numpy())
        return Bound((self.tokens,), (self.tokens_kv,), tuple((table,) for table in tables))

    def keys_of(self, query: int | tuple[int, ...], batch: int = 0, head: int = 0) -> list[int]:
        """Keys that one query of one head sees, ascending. Errors as `Bound.coordinates`."""
        return [int(key) for key in self.planes[batch, head, self.coordinates(query)[0]].nonzero()[:, 0]]

    def pairs(self) -> int:
        return int(self.planes.sum())

    def inverse(self, batch: int = 0, head: int = 0) -> Bound:
        """The reverse relation of one head: for each key the queries that see it."""
        return Relations(self.grid_kv, self.grid, self.planes.transpose(-2, -1)).head(batch, head)

    def mask_mod(
        self, device: str | torch.device = "cpu", heads: int | None = None
    ) -> Callable[[Any, Any, Any, Any], torch.Tensor]:
        """The relation as FlexAttention's ``mask_mod``, for ``heads`` query heads; default one per head of the mask."""
        planes = self.planes.to(device)
        sharing = 1 if heads is None else heads // planes.shape[1]
        one_batch = planes.shape[0] == 1

        def mask_mod(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
            return planes[0 if one_batch else batch, head // sharing, query, key]

        return mask_mod

    def draw(self, path: str | None = None, batch: int = 0, head: int = 0, **options: Any) -> str:
        """Draw the relation of one head. See `windeye.patterns.draw`."""
        return self.head(batch, head).draw(path, **options)
