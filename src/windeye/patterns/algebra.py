"""Patterns made of patterns. Intersections and unions of interval tables are interval tables again, so every
combination runs on every kernel that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from windeye.patterns.bound import Grid, Term, intersect_terms
from windeye.patterns.pattern import Pattern

MOST_TERMS = 16


@dataclass(frozen=True, repr=False)
class Both(Pattern):
    """``a & b``: allowed by every member.

    Example:
        >>> from windeye.patterns import Causal, Documents
        >>> (Documents((2, 3)) & Causal()).bind((5,)).keys_of(3)
        [2, 3]
    """

    members: tuple[Pattern, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", _flat(self.members, Both))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        parts = [member.terms(grid, grid_kv) for member in self.members]
        met = reduce(lambda a, b: tuple(t for x in a for y in b for t in intersect_terms(x, y)), parts)
        return _live(met, self)


@dataclass(frozen=True, repr=False)
class Either(Pattern):
    """``a | b``: allowed by at least one member; what several allow is still seen once.

    Example:
        >>> from windeye.patterns import Sinks, Sliding
        >>> (Sliding(2) | Sinks(1)).bind((6,)).keys_of(5)
        [0, 4, 5]
    """

    members: tuple[Pattern, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", _flat(self.members, Either))

    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        return _live(tuple(term for member in self.members for term in member.terms(grid, grid_kv)), self)


def _flat(members: tuple[Pattern, ...], kind: type[Both] | type[Either]) -> tuple[Pattern, ...]:
    if not isinstance(members, tuple | list):
        raise TypeError(f"members must be a tuple of patterns, got {members!r}")
    if not members:
        raise ValueError(f"{kind.__name__} needs at least one pattern, got ()")
    flat: list[Pattern] = []
    for member in members:
        if not isinstance(member, Pattern):
            raise TypeError(f"a combination is made of patterns, got {member!r}")
        if member.tables:
            raise ValueError(f"{member!r} depends on data and has no interval tables to combine; use its own & and |")
        flat.extend(member.members if isinstance(member, kind) else [member])
    return tuple(flat)


def _live(terms: tuple[Term, ...], pattern: Pattern) -> tuple[Term, ...]:
    """Drop terms that allow nothing; refuse what would make every step of every kernel slow."""
    live = tuple(term for term in terms if all(table.counts().any() for table in term))
    if len(live) > MOST_TERMS:
        raise ValueError(
            f"{pattern.spec} falls into {len(live)} parts, at most {MOST_TERMS} are supported; combine fewer patterns"
        )
    return live
