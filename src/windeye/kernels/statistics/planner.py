"""Which route each statistic takes: the cheapest that can, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from windeye.kernels.statistics import band, cpu, fused, slab, triton
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import ColumnStatistic, Statistic


class Route(Protocol):
    """``can_run`` gives None, or the reason why this statistic of these scores cannot take the route. ``run`` gives the
    values of row statistics and the sums of column statistics."""

    def can_run(self, scores: Scores, stat: Statistic) -> str | None: ...

    def run(self, scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]: ...


class _Slab:
    def can_run(self, _scores: Scores, _stat: Statistic) -> str | None:
        return None

    run = staticmethod(slab.run)


ROUTES: dict[str, Route] = {"cpu": cpu, "triton": triton, "fused": fused, "band": band, "slab": _Slab()}

AUTO: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu", "fused", "band", "slab"),
    "cuda": ("triton", "fused", "band", "slab"),
}
"""What "auto" tries, in order, by device type; the last runs everything, and is all that others have."""


def refusals(scores: Scores, stat: Statistic) -> dict[str, str | None]:
    """For every route, None when the statistic can take it, else why not."""
    return {name: route.can_run(scores, stat) for name, route in ROUTES.items()}


def choose(scores: Scores, stat: Statistic, name: str = "auto") -> str:
    """The route of a statistic: the named one, which must be able to, or the first that can.

    Raises:
        ValueError: the name is unknown, or the named route cannot run this; gives its reason.
    """
    if name == "auto":
        tried = AUTO.get(scores.query.device.type, ("fused", "slab"))
        return next(route for route in tried if ROUTES[route].can_run(scores, stat) is None)
    if name not in ROUTES:
        raise ValueError(f'route must be "auto" or one of {", ".join(ROUTES)}, got {name!r}')
    if reason := ROUTES[name].can_run(scores, stat):
        raise ValueError(f'route "{name}" cannot take {stat}: {reason}')
    return name


def run(scores: Scores, stats: Mapping[str, Statistic], route: str = "auto") -> dict[str, Tensor]:
    """The values of all statistics, those of one route computed together."""
    values = sums(scores, stats, route)
    for name, stat in stats.items():
        if isinstance(stat, ColumnStatistic) and (counts := stat.counts(scores)) is not None:
            values[name] = values[name] / counts.clamp(min=1)
    return values


def sums(scores: Scores, stats: Mapping[str, Statistic], route: str = "auto") -> dict[str, Tensor]:
    """As `run`, but columns are not divided: over passes that continue each other both sums and counts add up."""
    chosen: dict[str, dict[str, Statistic]] = {}
    for name, stat in stats.items():
        stat.check(scores)
        chosen.setdefault(choose(scores, stat, route), {})[name] = stat
    values = {name: value for way, group in chosen.items() for name, value in ROUTES[way].run(scores, group).items()}
    return {name: values[name] for name in stats}
