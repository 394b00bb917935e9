"""What each budget of the experiment takes."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.papers.experiment import Budget


@dataclass(frozen=True)
class Plan:
    """Training steps, held-out crops, heads in the timed attention, rounds of timing per seed."""

    steps: int
    crops: int
    heads: int
    rounds: int


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(4, 2, 1, 1),
    "default": Plan(1000, 128, 4, 3),
    "full": Plan(10_000, 512, 8, 9),
}
