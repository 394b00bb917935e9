"""Regions that see chosen regions: which ones is data, so the pattern carries an index, and its bound form has one
relation per batch entry and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from windeye.patterns.bound import Grid
from windeye.patterns.data import DataPattern
from windeye.patterns.pattern import Pattern, check_axes, check_grid, per_axis
from windeye.patterns.relation import Allowed, Relations

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False, eq=False)
class Routed(DataPattern):
    """A query sees all keys of the regions that its own region has chosen: ``index[..., region of the query, :]``.

    Queries and keys are cut into equally many regions along every axis, numbered row-major; their sizes may differ, as
    where keys are means of several tokens. Memory of the kernel that serves it grows with the tokens, not with the
    keys that are seen. A sequence in chunks is a grid of one axis.

    Every integer of the index means something: a region chosen twice is seen once, and what is no region's number (such
    as -1) is nothing, so that regions may choose differently many. Two are equal when they hold the same tensor, see
    `Expiry`.

    Args:
        index: int32 or int64, [batch, regions, keep] for all heads alike or [batch, heads, regions, keep]. A batch of 1
            is every batch entry; the number of heads divides that of the queries, so that a group may share a choice.
        regions: how many regions each axis is cut into; they must divide both grids. With None the index says so: it is
            [batch, heads, *regions, keep], and the spec names no size, so that a compiled graph serves them all.

    Raises:
        TypeError, ValueError: not an integer tensor of three or four axes, or not as many regions as ``regions`` says.

    Source: biformer spec, mechanism.

    Example:
        >>> import torch
        >>> near_and_last = torch.tensor([[[0, 2], [1, 2], [2, -1]]])
        >>> Routed(near_and_last, 3).bind((6,)).mask()[0, 0].int().tolist()[1:4]
        [[1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    """

    index: torch.Tensor
    regions: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        import torch

        if not isinstance(self.index, torch.Tensor):
            raise TypeError(f"index must be a torch.Tensor, got {type(self.index).__name__}")
        if self.index.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"index must be int32 or int64, got {self.index.dtype}")
        if self.regions is None:
            if self.index.dim() < 4:
                raise ValueError(f"index must be [batch, heads, *regions, keep], got {tuple(self.index.shape)}")
            return
        if self.index.dim() not in (3, 4):
            raise ValueError(
                f"index must be [batch, regions, keep] or [batch, heads, regions, keep], got {tuple(self.index.shape)}"
            )
        object.__setattr__(self, "regions", check_axes(self.regions, "regions", 1))

    @property
    def planes(self) -> torch.Tensor:
        """The index as [batch, heads, regions, keep]."""
        if self.regions is None:
            return self.index.flatten(2, -2)
        return self.index if self.index.dim() == 4 else self.index[:, None]

    def cut(self, grid: Grid, name: str = "grid") -> tuple[Grid, Grid]:
        """Regions along each axis, and the size of one.

        Raises:
            ValueError: the regions do not divide the grid, or are not those of the index.
        """
        counts = self._counts(len(grid))
        for axis, (length, count) in enumerate(zip(grid, counts, strict=True)):
            if length % count:
                raise ValueError(f"{name}[{axis}] is {length}, which {count} regions do not divide")
        return counts, tuple(length // count for length, count in zip(grid, counts, strict=True))

    def hidden(self) -> torch.Tensor:
        """Entries of `planes` that show nothing: no region's number, or one that stands further to the left, too."""
        import torch

        planes = self.planes
        alike = planes[..., :, None] == planes[..., None, :]
        again = torch.tril(alike, diagonal=-1).any(dim=-1)
        return again | (planes < 0) | (planes >= planes.shape[-2])

    def _counts(self, rank: int) -> Grid:
        if self.regions is None:
            counts = tuple(self.index.shape[2:-1])
            if len(counts) != rank:
                raise ValueError(f"index has {len(counts)} axes of regions but the grid has {rank} axes")
            return counts
        counts = per_axis(self.regions, rank, "regions")
        if prod(counts) != self.index.shape[-2]:
            raise ValueError(
                f"index holds {self.index.shape[-2]} regions but regions {counts} of a grid are {prod(counts)}"
            )
        return counts

    def bind(self, grid: Sequence[int], grid_kv: Sequence[int] | None = None) -> Routes:
        """The relation of every batch entry and head; not cached, as the index is data."""
        query = check_grid(grid, "grid")
        return Routes(query, query if grid_kv is None else check_grid(grid_kv, "grid_kv", len(query)), self)

    def __and__(self, other: Pattern) -> Pattern:
        return other & self if isinstance(other, Allowed) else self._alone(other)

    def __or__(self, other: Pattern) -> Pattern:
        return other | self if isinstance(other, Allowed) else self._alone(other)

    __rand__, __ror__ = __and__, __or__

    def _alone(self, other: Pattern) -> Pattern:
        if not isinstance(other, Pattern):
            return NotImplemented
        raise ValueError(f"{self!r} combines with no pattern but Allowed; tell it as Allowed(mask) of a sequence first")


class Routes(Relations):
    """Chosen regions bound to a grid: what `Bound` offers, with one relation per batch entry and head of the index.

    Counts are sums over all of them. Masks are made only where they are asked for.

    Example:
        >>> import torch
        >>> bound = Routed(torch.tensor([[[1], [0]]]), (2, 1)).bind((4, 2), (2, 2))
        >>> bound.keys_of((3, 1)), bound.pairs()
        ([0, 1], 16)
    """

    pattern: Routed

    def __init__(self, grid: Grid, grid_kv: Grid, pattern: Routed) -> None:
        _, size = pattern.cut(grid, "grid")
        _, size_kv = pattern.cut(grid_kv, "grid_kv")
        for name, value in (("grid", grid), ("grid_kv", grid_kv), ("pattern", pattern), ("sizes", (size, size_kv))):
            object.__setattr__(self, name, value)

    @property
    def relations(self) -> int:
        return prod(self.pattern.planes.shape[:2])

    def chosen(self) -> torch.Tensor:
        """Which regions see which, bool [batch, heads, regions, regions]."""
        import torch

        planes, hidden = self.pattern.planes.long(), self.pattern.hidden()
        count = planes.shape[-2]
        out = torch.zeros(*planes.shape[:3], count + 1, dtype=torch.bool, device=planes.device)
        out.scatter_(-1, planes.masked_fill(hidden, count), True)
        return out[..., :count]

    def region_of(self, grid: Grid) -> torch.Tensor:
        """The region of every token of one of the two grids, row-major."""
        import torch

        counts, size = self.pattern.cut(grid)
        region = torch.zeros((), dtype=torch.long)
        for length, count, side in zip(grid, counts, size, strict=True):
            region = region[..., None] * count + torch.arange(length) // max(side, 1)
        return region.flatten().to(self.pattern.index.device)

    @property
    def planes(self) -> torch.Tensor:  # type: ignore[override]
        """The relation as a mask [batch, heads, queries, keys]: quadratic."""
        queries, keys = self.region_of(self.grid), self.region_of(self.grid_kv)
        return self.chosen()[..., queries[:, None], keys[None]]

    def keys_of(self, query: int | tuple[int, ...], batch: int = 0, head: int = 0) -> list[int]:
        """As `Relations.keys_of`; keys are numbered row-major."""
        number = 0
        for at, length in zip(self.coordinates(query), self.grid, strict=True):
            number = number * length + at
        region = self.region_of(self.grid)[number]
        seen = self.chosen()[batch, head, region][self.region_of(self.grid_kv)]
        return [int(key) for key in seen.nonzero()[:, 0]]

    def pairs(self) -> int:
        size, size_kv = (prod(self.pattern.cut(grid)[1]) for grid in (self.grid, self.grid_kv))
        return int(self.chosen().sum()) * size * size_kv

    def mask_mod(
        self, device: str | torch.device = "cpu", heads: int | None = None
    ) -> Callable[[Any, Any, Any, Any], torch.Tensor]:
        """As `Relations.mask_mod`, without a mask of tokens."""
        chosen = self.chosen().to(device)
        queries, keys = self.region_of(self.grid).to(device), self.region_of(self.grid_kv).to(device)
        sharing = 1 if heads is None else heads // chosen.shape[1]
        one_batch = chosen.shape[0] == 1

        def mask_mod(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
            return chosen[0 if one_batch else batch, head // sharing, queries[query], keys[key]]

        return mask_mod
