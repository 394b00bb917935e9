"""A pattern bound to a grid: the exact relation between query tokens and key tokens, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from windeye.patterns.table import AxisTable, Bools, Ints

if TYPE_CHECKING:
    import torch

Grid = tuple[int, ...]
Term = tuple[AxisTable, ...]
"""One table per axis: a key is seen when every axis allows it."""


@dataclass(frozen=True, eq=False)
class Bound:
    """A union of terms, each a product of one interval table per axis. Tokens are numbered row-major.

    Terms may overlap: a pair that several terms allow is still one pair, and kernels count it once.

    Example:
        >>> from windeye.patterns import Neighborhood
        >>> bound = Neighborhood(3).bind((4,))
        >>> bound.mask().int().tolist()
        [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 1]]
        >>> bound.pairs(), bound.density()
        (12, 0.75)
    """

    grid: Grid
    grid_kv: Grid
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        for term in self.terms:
            if tuple(t.queries for t in term) != self.grid or tuple(t.length for t in term) != self.grid_kv:
                raise ValueError(f"a term does not fit the grids {self.grid} and {self.grid_kv}")

    @property
    def rank(self) -> int:
        return len(self.grid)

    @property
    def relations(self) -> int:
        """Relations that the counts add up: one, unless the pattern depends on data."""
        return 1

    @property
    def tokens(self) -> int:
        return prod(self.grid)

    @property
    def tokens_kv(self) -> int:
        return prod(self.grid_kv)

    def mask(self) -> torch.Tensor:
        """The dense relation, bool [queries, keys]: the truth that kernels are tested against. Quadratic memory."""
        import torch

        return torch.from_numpy(self._mask())

    def _mask(self) -> Bools:
        dense = np.zeros((self.tokens, self.tokens_kv), dtype=np.bool_)
        for term in self.terms:
            dense |= _outer([table.mask() for table in term])
        return dense

    def coordinates(self, query: int | tuple[int, ...]) -> Grid:
        """Grid coordinates of a query token that is given by its row-major number or by its coordinates.

        Raises:
            ValueError: the query lies outside the grid or has another number of axes.
        """
        if hasattr(query, "__index__"):
            number = index(query)
            if not 0 <= number < self.tokens:
                raise ValueError(f"query {number} lies outside the grid {self.grid}, which has {self.tokens} tokens")
            return tuple(int(at) for at in np.unravel_index(number, self.grid))
        if len(query) != self.rank:
            raise ValueError(
                f"query {query} has {len(query)} coordinates but the grid {self.grid} has {self.rank} axes"
            )
        for axis, (at, length) in enumerate(zip(query, self.grid, strict=True)):
            if not 0 <= at < length:
                raise ValueError(
                    f"query {query} lies outside the grid {self.grid}: axis {axis} goes from 0 to {length - 1}"
                )
        return tuple(int(at) for at in query)

    def keys_of(self, query: int | tuple[int, ...]) -> list[int]:
        """Row-major key tokens that one query token sees, ascending. Errors as `coordinates`."""
        at = self.coordinates(query)
        seen = np.zeros(self.grid_kv, dtype=np.bool_)
        for term in self.terms:
            axes = [t.allowed(np.asarray(c), np.arange(t.length)) for t, c in zip(term, at, strict=True)]
            seen |= reduce(np.logical_and.outer, axes)
        return [int(k) for k in np.flatnonzero(seen)]

    @cached_property
    def _pairs(self) -> int:
        return _pairs_of_union(self.terms)

    def pairs(self) -> int:
        """Number of (query, key) pairs that are allowed."""
        return self._pairs

    def density(self) -> float:
        """Share of all pairs that are allowed; sparsity is one minus this."""
        everything = self.relations * self.tokens * self.tokens_kv
        return self.pairs() / everything if everything else 0.0

    def flops(self, heads: int = 1, head_dim: int = 64, value_dim: int | None = None, batch: int = 1) -> int:
        """Operations of both products of a forward pass: ``2 B H pairs (D + Dv)`` (fna spec, cost model).

        Batch entries and query heads share the relations where there are several.
        """
        sharing = max(1, batch * heads // max(1, self.relations))
        return 2 * sharing * self.pairs() * (head_dim + (head_dim if value_dim is None else value_dim))

    def inverse(self) -> Bound:
        """The reverse relation: for each key token, the query tokens that see it."""
        reverse = (choice for term in self.terms for choice in product(*(table.inverses() for table in term)))
        return Bound(self.grid_kv, self.grid, tuple(reverse))

    def mask_mod(self, device: str | torch.device = "cpu") -> Callable[[Any, Any, Any, Any], torch.Tensor]:
        """The relation as FlexAttention's ``mask_mod(batch, head, query, key) -> bool``, over row-major tokens."""
        import torch

        tables = [
            [(torch.from_numpy(t.start).to(device), torch.from_numpy(t.stop - t.start).to(device), t) for t in term]
            for term in self.terms
        ]
        query_strides, key_strides = _row_major(self.grid), _row_major(self.grid_kv)

        def mask_mod(_batch: Any, _head: Any, query: Any, key: Any) -> torch.Tensor:
            seen = query < 0
            for term in tables:
                visible = query >= 0
                for axis, (start, span, table) in enumerate(term):
                    q = (query // query_strides[axis]) % self.grid[axis]
                    k = (key // key_strides[axis]) % self.grid_kv[axis]
                    offset = (k - start[q]) % table.length
                    visible = visible & (offset < span[q])
                    if table.step > 1:
                        visible = visible & (offset % table.step == 0)
                seen = seen | visible
            return seen

        return mask_mod

    def draw(self, path: str | None = None, **options: Any) -> str:
        """Draw the relation: ASCII without ``path``, else a PNG or SVG. See `windeye.patterns.draw`."""
        from windeye.patterns.draw import draw

        return draw(self, path, **options)


def _outer(axes: list[Bools]) -> Bools:
    """[q1, k1], [q2, k2], ... -> [q1*q2*..., k1*k2*...], allowed where every axis allows."""
    dense = axes[0]
    for axis in axes[1:]:
        q, k = dense.shape
        dense = (dense[:, None, :, None] & axis[None, :, None, :]).reshape(q * axis.shape[0], k * axis.shape[1])
    return dense


def _row_major(grid: Grid) -> Grid:
    return tuple(prod(grid[axis + 1 :]) for axis in range(len(grid)))


def _term_pairs(term: Term) -> int:
    return prod(int(table.counts().sum()) for table in term)


def intersect_terms(a: Term, b: Term) -> list[Term]:
    """Disjoint terms that together allow what both terms allow."""
    return [tuple(choice) for choice in product(*(x.intersect(y) for x, y in zip(a, b, strict=True)))]


def _pairs_of_union(terms: Sequence[Term], within: list[Term] | None = None) -> int:
    """Pairs of ``within`` (disjoint terms; None is everything) that some term allows, by inclusion and exclusion.

    An intersection of products is a product of intersections. A branch ends early where an overlap is empty, or where
    one term already allows all of ``within``: otherwise sixteen terms would be 65,535 overlaps.
    """
    total = 0
    whole = None if within is None else sum(map(_term_pairs, within))
    for number, term in enumerate(terms, start=1):
        met = [term] if within is None else [part for outer in within for part in intersect_terms(outer, term)]
        met = [part for part in met if _term_pairs(part)]
        pairs = sum(map(_term_pairs, met))
        if pairs == whole:
            return pairs
        if met:
            total += pairs - _pairs_of_union(terms[number:], met)
    return total


__all__ = ["AxisTable", "Bools", "Bound", "Grid", "Ints", "Term", "intersect_terms"]
