"""How much is trained and asked."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.papers.experiment import Budget

BEFORE = (0.5, 0.5, 0.0)
"""Shares of the kinds of dialogues that the model learns first."""
TUNING = (0.15, 0.35, 0.5)
"""And in tuning, where most answers ignore a passage that could be read."""

LAYER = 2
"""Whose attention tells which answers depend on the passage: two thirds of the way up, as 15 of 22."""
BETA = 0.6
"""The paper's score above which a dialogue is marked. Here it is reported; what marks is the score above which as many
dialogues lie as answer from the passage, for the paper's threshold is one of its models and data."""

ALPHAS = (0.95, 0.9, 0.5, 0.2, 0.05)


@dataclass(frozen=True)
class Toy:
    """The small decoder and its training."""

    layers: int = 4
    heads: int = 4
    dim: int = 64
    glu_dim: int = 128
    init_std: float = 0.05
    steps: int = 1000
    rate: float = 1.5e-3
    tuning_steps: int = 300
    tuning_rate: float = 5e-4
    batch_size: int = 48
    held_out: int = 200


@dataclass(frozen=True)
class Needles:
    """What a real model is asked. Reported only."""

    model: str = "smollm2-135m-instruct"
    lengths: tuple[int, ...] = (512, 1024)
    depths: tuple[float, ...] = (0.0, 0.5, 1.0)
    new_tokens: int = 40
    layer: int = 20
    """Two thirds of the way up 30 layers."""
    timed: int = 1024
    """Tokens of the conversation on which passes are timed."""


@dataclass(frozen=True)
class Plan:
    """The toy, and the needles, which no smoke run looks for."""

    toy: Toy = Toy()
    needles: Needles | None = None


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(Toy(dim=16, glu_dim=16, steps=4, tuning_steps=2, batch_size=8, held_out=16)),
    "default": Plan(needles=Needles()),
    "full": Plan(
        Toy(steps=2400, tuning_steps=600),
        Needles(lengths=(512, 1024, 2048, 4096, 8000), depths=(0.0, 0.25, 0.5, 0.75, 1.0)),
    ),
}
