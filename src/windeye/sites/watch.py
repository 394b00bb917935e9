"""Statistics of attention beside the passes of a model, with memory that grows with the tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from windeye.kernels.statistics import planner
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import ColumnStatistic
from windeye.ops.statistics import Stats, named
from windeye.sites.call import AttentionCall
from windeye.sites.session import Session


class Watch(Session):
    """Takes statistics of every attention call while this is open. See `watch`."""

    def __init__(
        self,
        model: nn.Module,
        stats: Stats,
        layers: Iterable[int] | None = None,
        rows: Bool[Tensor, "batch tokens"] | None = None,
        route: str = "auto",
    ) -> None:
        super().__init__(model)
        self.stats = named(stats)
        self.layers = self.parts.chosen(layers)
        self.rows = rows
        self.route = route
        self._rows: dict[tuple[str, int], list[Tensor]] = {}
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._counts: dict[tuple[str, int], Tensor] = {}

    def see(self, layer: int, call: AttentionCall, scores: Scores) -> None:
        if layer not in self.layers:
            return
        scores = scores.counting(self._counted(call))
        for name, value in planner.sums(scores, self.stats, self.route).items():
            place, stat = (name, layer), self.stats[name]
            if isinstance(stat, ColumnStatistic):
                _add(self._sums, place, _by_position(value, call))
                if (counts := stat.counts(scores)) is not None:
                    _add(self._counts, place, _by_position(counts, call))
            else:
                self._rows.setdefault(place, []).append(value)

    def clear(self) -> None:
        """Forget all passes."""
        for kept in (self._rows, self._sums, self._counts):
            kept.clear()

    def __getitem__(self, place: str | tuple[str, int]) -> Tensor:
        name, layer = place if isinstance(place, tuple) else (place, None)
        if name not in self.stats:
            raise KeyError(f"there is no statistic {name!r}; there are {', '.join(self.stats)}")
        if layer is None:
            return torch.stack([self._of(name, layer) for layer in self.layers])
        if layer not in self.layers:
            raise KeyError(f"layer {layer} was not watched; there are {', '.join(map(str, self.layers))}")
        return self._of(name, layer)

    def values(self) -> dict[str, Tensor]:
        """All statistics by name, layers first."""
        return {name: self[name] for name in self.stats}

    def _counted(self, call: AttentionCall) -> Tensor | None:
        """Of the queries of this call, those that count in columns; tokens that ``rows`` does not know count."""
        if self.rows is None:
            return None
        batch = call.query.shape[0]
        places = call.query_positions().expand(batch, -1)
        known = self.rows.to(places.device)
        if known.shape[0] not in (1, batch):
            raise ValueError(f"rows are of batch {known.shape[0]}, the attention of batch {batch}")
        known = known.expand(batch, -1)
        inside = (places >= 0) & (places < known.shape[1])
        return known.gather(1, places.clamp(0, known.shape[1] - 1)) | ~inside

    def _of(self, name: str, layer: int) -> Tensor:
        place = (name, layer)
        if place in self._sums:
            count = self._counts.get(place)
            return self._sums[place] if count is None else self._sums[place] / count.clamp(min=1)
        if place not in self._rows:
            raise KeyError(f"nothing was seen in layer {layer}: no pass ran while this was open")
        return torch.cat(self._rows[place], dim=1)


def watch(
    model: nn.Module,
    stats: Stats,
    layers: Iterable[int] | None = None,
    *,
    rows: Bool[Tensor, "batch tokens"] | None = None,
    route: str = "auto",
) -> Watch:
    """Statistics of the attention of a model, beside its passes and after all edits.

    ``seen[name]`` is [layers, batch, ...] as `windeye.statistics` gives it, ``seen[name, layer]`` one layer. Passes
    that continue each other, as in generation, are joined: rows one after the other, columns as if of one pass.

    Args:
        model: one of ours, or one of transformers after `windeye.hf.attach`. In our decoders padding stands behind the
            tokens, whatever side it was given on: place ``t`` is token ``t`` of its sequence.
        stats: as of `windeye.statistics`.
        layers: default all.
        rows: queries that count in columns, by position; default all.
        route: as of `windeye.statistics`.

    Raises:
        ValueError, TypeError, IndexError: names, layers or shapes do not fit; says what there is.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> with watch(model, ["entropy", "column_sum"]) as seen:
        ...     logits = model(torch.arange(6)[None])
        >>> seen["entropy"].shape, seen["column_sum", 1].shape
        (torch.Size([2, 1, 6, 4]), torch.Size([1, 6, 4]))
    """
    return Watch(model, stats, layers, rows, route)


def _by_position(columns: Tensor, call: AttentionCall) -> Tensor:
    """Values of the keys at hand, at the positions of these keys: caches may have dropped those before."""
    if isinstance(call.key_start, int) and call.key_start == 0:
        return columns
    positions = call.key_positions().expand(max(columns.shape[0], call.key_positions().shape[0]), -1)
    there = positions >= 0
    out = columns.new_zeros(positions.shape[0], int(positions.max()) + 1, columns.shape[2])
    values = columns.expand(positions.shape[0], -1, -1) * there[..., None]
    return out.scatter_add(1, positions.clamp(min=0)[..., None].expand_as(values), values)


def _add(sums: dict[tuple[str, int], Tensor], place: tuple[str, int], new: Tensor) -> None:
    """Add to the sum of the passes before, which have seen fewer keys."""
    before = sums.get(place)
    if before is not None:
        keys = max(before.shape[1], new.shape[1])
        before, new = (torch.nn.functional.pad(t, (0, 0, 0, keys - t.shape[1])) for t in (before, new))
        new = before + new
    sums[place] = new
