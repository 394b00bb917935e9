"""What every pattern is: a frozen description with value equality that can be bound to a grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, SupportsIndex

from windeye.patterns.bound import Bound, Grid, Term

if TYPE_CHECKING:
    import torch

Axes = int | tuple[int, ...]
"""An integer for every axis alike, or one integer per axis."""


@dataclass(frozen=True, repr=False)
class Pattern(ABC):
    """Who sees whom. A pattern knows nothing of tensors; `bind` makes it exact for a grid of tokens."""

    __match_args__: ClassVar[tuple[str, ...]]

    @property
    def spec(self) -> str:
        """The pattern as text: equal patterns have equal specs, and `from_spec` reads it back."""
        # Written so that torch.compile can trace it: defaults are read off the class, not off dataclass fields.
        kind = type(self)
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in kind.__match_args__
            if getattr(self, name) != getattr(kind, name, None)
        ]
        return f"{kind.__name__}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.spec

    @property
    def tables(self) -> tuple[torch.Tensor, ...]:
        """Tensors of a pattern that depends on data; they travel beside the spec. Empty for all others."""
        return ()

    def bind(self, grid: Sequence[int], grid_kv: Sequence[int] | None = None) -> Bound:
        """The exact relation between the query tokens of ``grid`` and the key tokens of ``grid_kv`` (default ``grid``).

        Raises:
            ValueError: the pattern does not fit the grid; names the axis and the values.

        Example:
            >>> from windeye.patterns import Neighborhood
            >>> Neighborhood(5, stride=2).bind([8]).keys_of(4)
            [3, 4, 5, 6, 7]
        """
        query = check_grid(grid, "grid")
        return _bind(self, query, query if grid_kv is None else check_grid(grid_kv, "grid_kv", len(query)))

    @abstractmethod
    def terms(self, grid: Grid, grid_kv: Grid) -> tuple[Term, ...]:
        """The interval tables on a checked, non-empty grid."""

    def __and__(self, other: Pattern) -> Pattern:
        from windeye.patterns.algebra import Both

        if not isinstance(other, Pattern):
            return NotImplemented
        return other & self if other.tables else Both((self, other))

    def __or__(self, other: Pattern) -> Pattern:
        from windeye.patterns.algebra import Either

        if not isinstance(other, Pattern):
            return NotImplemented
        return other | self if other.tables else Either((self, other))


@lru_cache(maxsize=256)
def _bind(pattern: Pattern, grid: Grid, grid_kv: Grid) -> Bound:
    if 0 in grid or 0 in grid_kv:
        return Bound(grid, grid_kv, ())
    return Bound(grid, grid_kv, pattern.terms(grid, grid_kv))


def from_spec(spec: str, tables: Sequence[torch.Tensor] = ()) -> Pattern:
    """The pattern that a spec describes, with the ``tables`` that it carries where it depends on data.

    Example:
        >>> from windeye.patterns import Neighborhood
        >>> from_spec(Neighborhood((3, 5), stride=2).spec) == Neighborhood((3, 5), stride=2)
        True
    """
    if tables:
        from windeye.patterns.data import read_spec

        return read_spec(spec, tables)
    return _from_spec(spec)


@lru_cache(maxsize=256)
def _from_spec(spec: str) -> Pattern:
    from windeye.patterns.text import evaluate_spec

    return evaluate_spec(spec)


def check_grid(grid: Sequence[int], name: str, rank: int | None = None) -> Grid:
    """A grid as a tuple of plain non-negative integers."""
    try:
        shape = tuple(grid)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers such as (32, 32), got {grid!r}") from None
    if not shape:
        raise ValueError(f"{name} must have at least one axis, got ()")
    for axis, length in enumerate(shape):
        if not is_int(length):
            raise TypeError(f"{name}[{axis}] must be an integer, got {length!r}")
        if length < 0:
            raise ValueError(f"{name}[{axis}] must not be negative, got {length}")
    if rank is not None and len(shape) != rank:
        raise ValueError(f"{name} {shape} has {len(shape)} axes but the query grid has {rank}")
    return tuple(int(length) for length in shape)


def check_axes(value: object, name: str, minimum: int, *, also: tuple[int, ...] = ()) -> Axes:
    """An integer or a tuple of integers, each at least ``minimum`` (or one of ``also``), as a plain value."""
    many = isinstance(value, tuple | list)
    entries = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not entries:
        raise ValueError(f"{name} must name at least one axis, got {value!r}")
    for axis, entry in enumerate(entries):
        where = f"{name}[{axis}]" if many else name
        if not is_int(entry):
            raise TypeError(f"{where} must be an integer, got {entry!r}")
        if entry < minimum and entry not in also:
            extra = "".join(f" or {a}" for a in also)
            raise ValueError(f"{where} must be at least {minimum}{extra}, got {entry}")
    plain = tuple(int(entry) for entry in entries)
    return plain if many else plain[0]


def per_axis(value: Axes | bool | tuple[bool, ...], rank: int, name: str) -> tuple[int, ...]:
    """Broadcast an integer over the axes of a grid, or check a tuple against their number."""
    if not isinstance(value, tuple):
        return (int(value),) * rank
    if len(value) != rank:
        raise ValueError(f"{name} {value} has {len(value)} entries but the grid has {rank} axes")
    return tuple(int(v) for v in value)


def is_int(value: object) -> bool:
    """Whether this is an integer and not a bool, which Python also counts as one."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)
