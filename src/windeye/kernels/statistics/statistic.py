"""The statistics of rows, and what those of columns are: each is a definition on rows of the map, and says what a
kernel needs to know to stream it.

``A[t, s]`` is the weight that query ``t`` gives to key ``s``, before dropout. Positions count along the keys; the last
query stands at the last key unless the relation says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.kernels.statistics.relation import seen_at_all

if TYPE_CHECKING:
    from windeye.kernels.statistics.scores import Scores
    from windeye.kernels.statistics.slab import RowSlab


class Statistic(ABC):
    """A number, or several, about each row or each column of every head's map."""

    @abstractmethod
    def of_rows(self, slab: RowSlab) -> Tensor:
        """Its value for some rows: [batch, heads, rows, ...] of rows, [batch, heads, keys] of columns, to be added."""

    def check(self, scores: Scores) -> None:  # noqa: B027 - most fit everything
        """Refuse scores that this cannot be taken of.

        Raises:
            ValueError: names the argument and the values.
        """


class RowStatistic(Statistic):
    """A value per query and head: [batch, queries, heads], or with more axes behind."""


class ColumnStatistic(Statistic):
    """A value per key and head: [batch, keys, heads], a sum over queries divided by how many there are to sum."""

    lags: tuple[int, int | None] = (-(2**30), None)
    """Distances ``t - s`` that are summed; None: without end."""

    def counts(self, scores: Scores) -> Int[Tensor, "batch keys heads"] | None:
        """What to divide by: how many queries may be summed per key, batch and heads 1 where all are alike. None where
        the sum itself is the value."""
        del scores
        return None


class DistanceStatistic(RowStatistic):
    """``sum_s A[t, s] phi(t - s)``: a function of the distance alone."""

    @abstractmethod
    def phi(self, distance: Int[Tensor, ...]) -> Tensor:
        """The function, elementwise."""

    @property
    def band(self) -> tuple[int, int] | None:
        """Distances outside of which ``phi`` is constant on either side; None where there are none."""
        return None

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        return (slab.weights * self.phi(slab.distance)).sum(dim=-1)


class KeyStatistic(RowStatistic):
    """``sum_s A[t, s] phi(s)``: functions of the key alone, which an attention with other values computes."""

    several = True
    """Whether the value has an axis of features behind; a single feature is squeezed out where not."""

    @abstractmethod
    def features(self, scores: Scores) -> Float[Tensor, "batch keys features"]:
        """The functions; batch is 1 where all entries are alike."""

    def of_rows(self, slab: RowSlab) -> Tensor:
        value = slab.weights @ self.features(slab.scores).to(slab.weights.dtype)[:, None]
        return value if self.several else value[..., 0]


@dataclass(frozen=True)
class Entropy(RowStatistic):
    """``- sum_s A log A`` in nats: 0 where one key takes all, ``log n`` where n keys share alike.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"H": Entropy()})["H"][0, :, 0].exp().round().tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        return -(slab.weights * slab.log_weights).sum(dim=-1)


@dataclass(frozen=True)
class Participation(RowStatistic):
    """``sum_s A^2``; its inverse is the effective number of keys.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"p": Participation()})["p"][0, :, 0].double().round(decimals=2).tolist()[::3]
        [1.0, 0.25]
    """

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        return slab.weights.square().sum(dim=-1)


@dataclass(frozen=True)
class MaxWeight(RowStatistic):
    """``max_s A``.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"m": MaxWeight()})["m"][0, :, 0].double().round(decimals=2).tolist()[::3]
        [1.0, 0.25]
    """

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        return slab.weights.amax(dim=-1)


@dataclass(frozen=True)
class TopKeys(RowStatistic):
    """The ``count`` heaviest keys of each query, heaviest first: [batch, queries, heads, count, 2] of key and weight.

    Places beyond the keys that a query sees hold key -1 and weight 0.

    Example:
        >>> import torch, windeye
        >>> q = torch.eye(3)[None, :, None]  # a query likes itself best
        >>> windeye.statistics(9 * q, q, {"top": TopKeys()})["top"][0, :, 0, 0, 0].tolist()
        [0.0, 1.0, 2.0]
    """

    count: int = 1

    def __post_init__(self) -> None:
        at_least("count", self.count, 1)

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows count 2"]:
        weight, key = slab.weights.topk(min(self.count, slab.weights.shape[-1]), dim=-1)
        key = key.masked_fill(~slab.seen.gather(-1, key), -1)
        short = self.count - key.shape[-1]
        if short:
            key = torch.nn.functional.pad(key, (0, short), value=-1)
            weight = torch.nn.functional.pad(weight, (0, short))
        return torch.stack((key.to(weight.dtype), weight), dim=-1)


@dataclass(frozen=True)
class RowMass(RowStatistic):
    """``sum_s A``: 1, or less where a learned sink takes a share; 0 where nothing is seen.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> sink = torch.tensor([3.0]).log()  # weighs as much as three keys
        >>> mass = windeye.statistics(q, q, {"m": RowMass()}, sink_logits=sink)["m"][0, :, 0]
        >>> [round(float(m), 2) for m in mass]
        [0.25, 0.4, 0.5, 0.57]
    """

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        return slab.weights.sum(dim=-1)


@dataclass(frozen=True)
class MeanDistance(DistanceStatistic):
    """``sum_s A |t - s|``, in tokens: how far a query looks.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"d": MeanDistance()})["d"][0, :, 0].double().round(decimals=2).tolist()
        [0.0, 0.5, 1.0, 1.5]
    """

    def phi(self, distance: Int[Tensor, ...]) -> Tensor:
        return distance.abs()


@dataclass(frozen=True)
class WindowedDistance(DistanceStatistic):
    """``sum_s A min(|t - s|, window)``, in [0, window]: small where the neighbours are enough.

    Averaged over local heads it is the windowed average attention distance, WAAD (preplan-anchor spec, mechanism 3).

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"d": WindowedDistance(1)})["d"][0, :, 0].double().round(decimals=2).tolist()[::3]
        [0.0, 0.75]
    """

    window: int = 10

    def __post_init__(self) -> None:
        at_least("window", self.window, 1)

    def phi(self, distance: Int[Tensor, ...]) -> Tensor:
        return distance.abs().clamp(max=self.window)

    @property
    def band(self) -> tuple[int, int]:
        return -self.window, self.window


@dataclass(frozen=True)
class DistanceMass(DistanceStatistic):
    """``sum_s A [low <= t - s <= high]``: the weight on keys so many tokens back (negative: ahead).

    ``(0, 0)`` is the token itself, ``(1, 1)`` the one before, ``(0, w - 1)`` a local window; on a text that repeats
    every ``p`` tokens, ``(p, p)`` is the same token and ``(p - 1, p - 1)`` the one that followed it.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"d": DistanceMass(1, 1)})["d"][0, :, 0].double().round(decimals=2).tolist()[::3]
        [0.0, 0.25]
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high {self.high} must not be below low {self.low}")

    def phi(self, distance: Int[Tensor, ...]) -> Tensor:
        return (distance >= self.low) & (distance <= self.high)

    @property
    def band(self) -> tuple[int, int]:
        return self.low - 1, self.high + 1


@dataclass(frozen=True)
class SinkMass(KeyStatistic):
    """The weight on the first ``count`` keys of each sequence, padding not counted.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> windeye.statistics(q, q, {"sink": SinkMass(2)})["sink"][0, :, 0].double().round(decimals=2).tolist()
        [1.0, 1.0, 0.67, 0.5]
    """

    count: int = 1
    several = False

    def __post_init__(self) -> None:
        at_least("count", self.count, 1)

    def features(self, scores: Scores) -> Float[Tensor, "batch keys 1"]:
        seen = seen_at_all(scores.relation)
        return (seen & (seen.long().cumsum(dim=-1) <= self.count))[..., None].to(scores.wide)


@dataclass(frozen=True, eq=False)
class SpanMass(KeyStatistic):
    """The weight on each of several sets of keys: [batch, queries, heads, spans], or without the last axis for one.

    Args:
        spans: True for the keys of a set, [batch, spans, keys] or [batch, keys]; batch may be 1.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 4, 1, 8)  # a query weighs all it sees alike
        >>> spans = torch.tensor([[[True, False, False, False], [False, True, True, False]]])
        >>> windeye.statistics(q, q, {"s": SpanMass(spans)})["s"][0, 3, 0].double().round(decimals=2).tolist()
        [0.25, 0.5]
    """

    spans: Bool[Tensor, "batch spans keys"] | Bool[Tensor, "batch keys"]

    def __post_init__(self) -> None:
        if self.spans.dtype != torch.bool or self.spans.dim() not in (2, 3):
            raise TypeError(
                f"spans must be bool [batch, spans, keys] or [batch, keys], got {self.spans.dtype} "
                f"of shape {tuple(self.spans.shape)}"
            )

    @property
    def several(self) -> bool:  # type: ignore[override]
        return self.spans.dim() == 3

    def check(self, scores: Scores) -> None:
        batch, keys = self.spans.shape[0], self.spans.shape[-1]
        if keys != scores.relation.keys or batch not in (1, scores.batch):
            raise ValueError(
                f"spans are of batch {batch} and {keys} keys; the attention has batch {scores.batch} "
                f"and {scores.relation.keys} keys"
            )

    def features(self, scores: Scores) -> Float[Tensor, "batch keys spans"]:
        spans = self.spans if self.several else self.spans[:, None]
        return spans.transpose(1, 2).to(scores.query.device, scores.wide)


def at_least(name: str, value: int, least: int) -> None:
    """Refuse what is no integer of this size."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
