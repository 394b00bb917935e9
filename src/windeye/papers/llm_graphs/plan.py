"""Which graphs are read, how large the readers are and how long they train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from windeye.data.graphs import Graph, Wording, digits_neighbours, syntax_forest
from windeye.papers.experiment import Budget

SYNTAX, DIGITS = "syntax", "digits"
FULL = 4
"""The horizon of a tree of two hops at which everything is seen: full attention."""
HORIZONS = (0, 1, 2, 3, FULL)
RANDOM = -1
"""In place of a horizon: as many pairs as the horizon 2 allows, chosen at random."""
RANDOM_AS = 2


@dataclass(frozen=True)
class Plan:
    """Sizes. ``train`` and ``held_out`` count centres, one tree each; attention is read on ``looked_at`` of them."""

    graphs: dict[str, Callable[[], Graph]]
    fan_out: tuple[int, int]
    train: int
    held_out: int
    looked_at: int
    steps: int
    batch_size: int
    layers: int
    dim: int
    heads: int
    rate: float
    repeats: int


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        {SYNTAX: partial(syntax_forest, 1500), DIGITS: digits_neighbours}, fan_out=(3, 3), train=48, held_out=24,
        looked_at=8, steps=3, batch_size=8, layers=1, dim=16, heads=2, rate=3e-3, repeats=1,
    ),
    "default": Plan(
        {SYNTAX: partial(syntax_forest, 20000), DIGITS: digits_neighbours}, fan_out=(4, 4), train=6000, held_out=1500,
        looked_at=200, steps=400, batch_size=32, layers=2, dim=64, heads=4, rate=3e-3, repeats=2,
    ),
    "full": Plan(
        {SYNTAX: partial(syntax_forest, 200000), DIGITS: digits_neighbours}, fan_out=(8, 8), train=60000,
        held_out=4000, looked_at=500, steps=6000, batch_size=32, layers=4, dim=128, heads=4, rate=1e-3, repeats=4,
    ),
}  # fmt: skip

ARMS: dict[str, tuple[int, ...]] = {SYNTAX: (0, 1, 2, FULL, RANDOM), DIGITS: (2, FULL)}
"""The horizons that readers of each graph are trained with."""

WORDING = Wording("node", asked="What is")


def arm(horizon: int) -> str:
    """What an arm is called.

    Example:
        >>> arm(2), arm(FULL), arm(RANDOM)
        ('k = 2', 'full attention', 'random pairs')
    """
    return {FULL: "full attention", RANDOM: "random pairs"}.get(horizon, f"k = {horizon}")
