"""The arms of the experiment, and what each budget takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from windeye.nn.pools import (
    AbmilpPool,
    AveragePool,
    ClassTokenPool,
    CrossAttentionPool,
    EfficientPool,
    SimPool,
    TokenPool,
)
from windeye.papers.experiment import Budget

CLASS, MEAN, NEAREST = "class token", "mean", "nearest neighbours"
HEADS, SIMPOOL, ABMILP = "cross-attention of 8 heads", "SimPool", "AbMILP"
QUERIES = (1, 4, 8, 16)


def ep(queries: int) -> str:
    """The name of an arm."""
    return f"EP, {queries} {'query' if queries == 1 else 'queries'}"


MATCHED = ep(8)
"""The arm with as many maps as cross-attention has heads."""

POOLS: dict[str, Callable[[int], TokenPool]] = {
    CLASS: ClassTokenPool,
    MEAN: AveragePool,
    **{ep(queries): partial(EfficientPool, queries=queries) for queries in QUERIES},
    HEADS: partial(CrossAttentionPool, heads=8),
    SIMPOOL: SimPool,
    ABMILP: AbmilpPool,
}
"""Arms that are trained, and the pool of each for a width."""
LABELLED = (CLASS, MEAN, MATCHED)
"""Arms that read the encoder that labels have trained, too."""


@dataclass(frozen=True)
class Plan:
    """Sizes of encoder and decoder, both trainings of encoders, the probes and what they read."""

    dim: int
    depth: int
    heads: int
    decoder_dim: int
    batch: int
    masked_steps: int
    masked_rate: float
    labelled_steps: int
    labelled_rate: float
    trained: int
    checked: int
    tested: int
    probe_batch: int
    probe_steps: int
    rates: tuple[float, ...]
    """Each probe takes the one of these that is best on the scenes that choose."""


RATES = (5e-3, 2e-2, 6e-2, 2e-1)
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(16, 1, 2, 8, 4, 2, 1e-3, 2, 1e-3, 24, 12, 16, 8, 2, (1e-3, 1e-2)),
    "default": Plan(64, 4, 4, 48, 64, 1500, 3e-3, 200, 1e-3, 6000, 800, 2000, 128, 1500, RATES),
    "full": Plan(128, 4, 4, 64, 128, 15000, 1.5e-3, 3000, 1e-3, 30000, 4000, 8000, 256, 4000, RATES),
}
