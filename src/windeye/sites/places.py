"""Where an edit acts: which keys, queries, heads and layers. Plain data, so that edits can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Ranges = tuple[tuple[int, int], ...]
"""Positions ``start <= p < stop`` of one sequence."""

Heads = tuple[int, ...] | Mapping[int, tuple[int, ...]] | None
"""Heads of every layer alike, or of each layer that is named; None: all."""


@dataclass(frozen=True)
class Keys:
    """A set of positions, the same in every sequence or one per sequence of the batch.

    Args:
        ranges: per sequence, positions ``start <= p < stop``; one entry serves the whole batch.
        outside: take all other positions instead, later ones included: what is generated lies outside.

    Example:
        >>> Keys.span(2, 4).mask(torch.arange(6)[None]).int().tolist()
        [[0, 0, 1, 1, 0, 0]]
        >>> Keys.at(0, 5, outside=True).mask(torch.arange(6)[None]).int().tolist()
        [[0, 1, 1, 1, 1, 0]]
    """

    ranges: tuple[Ranges, ...]
    outside: bool = False

    @classmethod
    def at(cls, *positions: int, outside: bool = False) -> Keys:
        """Single positions, in every sequence."""
        return cls((tuple((p, p + 1) for p in positions),), outside)

    @classmethod
    def span(cls, start: int, stop: int, *, outside: bool = False) -> Keys:
        """``start <= p < stop``, in every sequence."""
        return cls((((start, stop),),), outside)

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch positions"], *, outside: bool = False) -> Keys:
        """The positions where a mask is True."""
        return cls(tuple(_ranges(row) for row in mask.tolist()), outside)

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("ranges must have an entry for every sequence, or one for all, got none")
        for ranges in self.ranges:
            for start, stop in ranges:
                if start < 0 or stop <= start:
                    raise ValueError(f"a range of positions must be 0 <= start < stop, got ({start}, {stop})")

    def mask(self, positions: Int[Tensor, "batch places"], batch: int | None = None) -> Bool[Tensor, "batch places"]:
        """Whether each of these positions is taken. Beams of a sequence stand side by side and share its entry.

        Raises:
            ValueError: there are entries for another number of sequences.
        """
        batch = positions.shape[0] if batch is None else batch
        if batch % len(self.ranges):
            raise ValueError(f"positions are given for {len(self.ranges)} sequences, the batch has {batch}")
        positions = positions.expand(batch, -1)
        taken = torch.zeros_like(positions, dtype=torch.bool)
        copies = batch // len(self.ranges)
        for entry, ranges in enumerate(self.ranges):
            rows = slice(entry * copies, (entry + 1) * copies)
            for start, stop in ranges:
                taken[rows] |= (positions[rows] >= start) & (positions[rows] < stop)
        return ~taken if self.outside else taken

    def positions(self) -> set[int] | None:
        """All that are named, of any sequence; None where those outside are meant."""
        if self.outside:
            return None
        return {p for ranges in self.ranges for start, stop in ranges for p in range(start, stop)}


@dataclass(frozen=True)
class Where:
    """The queries, heads and layers that an edit touches.

    Args:
        layers: numbers from 0; None: all.
        heads: numbers of query heads in all these layers, or ``{layer: heads}`` (then ``layers`` stays None).
        rows: "all" queries, the "last" of each call (in generation: of the prompt and of every new token), or the
            queries at certain positions.
    """

    layers: tuple[int, ...] | None = None
    heads: Heads = None
    rows: Literal["all", "last"] | Keys = "all"

    def __post_init__(self) -> None:
        if isinstance(self.heads, Mapping) and self.layers is not None:
            raise ValueError("heads names layers already; leave layers None")
        if not (self.rows in ("all", "last") or isinstance(self.rows, Keys)):
            raise ValueError(f'rows must be "all", "last" or Keys, got {self.rows!r}')

    def has(self, layer: int) -> bool:
        """Whether the layer is touched."""
        if isinstance(self.heads, Mapping):
            return layer in self.heads
        return self.layers is None or layer in self.layers

    def heads_of(self, layer: int, heads: int) -> tuple[int, ...]:
        """The heads that are touched in a layer of so many."""
        chosen = self.heads[layer] if isinstance(self.heads, Mapping) else self.heads
        return tuple(range(heads)) if chosen is None else tuple(chosen)

    def rows_of(self, positions: Int[Tensor, "batch queries"], batch: int) -> Bool[Tensor, "batch queries"]:
        """The queries that are touched, of those at these positions."""
        if isinstance(self.rows, Keys):
            return self.rows.mask(positions, batch)
        touched = torch.ones(batch, positions.shape[1], dtype=torch.bool, device=positions.device)
        if self.rows == "last":
            touched[:, :-1] = False
        return touched

    def check(self, layers: int, heads: int | None, what: str) -> None:
        """Refuse layers and heads that a model does not have.

        Raises:
            IndexError: names them, and what there is.
        """
        named = list(self.heads) if isinstance(self.heads, Mapping) else list(self.layers or ())
        for layer in named:
            if not 0 <= layer < layers:
                raise IndexError(f"{what} names layer {layer}; the model has layers 0 to {layers - 1}")
        if heads is None:
            return
        groups: Iterable[Sequence[int]] = self.heads.values() if isinstance(self.heads, Mapping) else [self.heads or ()]
        for group in groups:
            for head in group:
                if not 0 <= head < heads:
                    raise IndexError(f"{what} names head {head}; a layer has heads 0 to {heads - 1}")


def to_plain(value: Any) -> Any:
    """Places as what JSON holds."""
    if isinstance(value, Keys):
        return {"ranges": [[list(r) for r in ranges] for ranges in value.ranges], "outside": value.outside}
    if isinstance(value, Mapping):
        return {str(key): list(entry) if isinstance(entry, tuple) else entry for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def keys_from(plain: Any) -> Keys:
    """Keys from what JSON holds: as `to_plain` writes them, a list of positions, or ``{"span": [start, stop]}``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(plain, list) and all(isinstance(p, int) for p in plain):
        return Keys.at(*plain)
    if isinstance(plain, dict) and "span" in plain:
        return Keys.span(*plain["span"], outside=bool(plain.get("outside", False)))
    if isinstance(plain, dict) and "ranges" in plain:
        ranges = tuple(tuple((int(a), int(b)) for a, b in entry) for entry in plain["ranges"])
        return Keys(ranges, bool(plain.get("outside", False)))
    raise ValueError(f'positions must be a list, {{"span": [start, stop]}} or {{"ranges": ...}}, got {plain!r}')


def where_from(plain: Mapping[str, Any]) -> dict[str, Any]:
    """``layers``, ``heads`` and ``rows`` from what JSON holds."""
    out: dict[str, Any] = {}
    if plain.get("layers") is not None:
        out["layers"] = tuple(plain["layers"])
    if plain.get("heads") is not None:
        heads = plain["heads"]
        out["heads"] = {int(k): tuple(v) for k, v in heads.items()} if isinstance(heads, dict) else tuple(heads)
    if "rows" in plain:
        out["rows"] = plain["rows"] if isinstance(plain["rows"], str) else keys_from(plain["rows"])
    return out


def _ranges(row: list[bool]) -> Ranges:
    found: list[tuple[int, int]] = []
    for place, taken in enumerate(row):
        if taken and found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        elif taken:
            found.append((place, place + 1))
    return tuple(found)
