"""The arms of the experiment, and what each budget takes."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.papers.experiment import Budget

LOCAL, GLOBAL, SUM, CONCAT, MAF = "local branch", "global branch", "sum", "concatenation", "attention"
ARMS = (LOCAL, GLOBAL, SUM, CONCAT, MAF)
"""Networks of equal size."""
RATIO = 0.5
"""Global tokens per token."""
RATIOS = (0.125, 0.25, 0.5, 1.0)


def ablation(ratio: float) -> str:
    """The name of fusion by attention with another number of global tokens, at its own size."""
    return MAF if ratio == RATIO else f"{MAF}, {ratio:g} of the tokens"


ABLATIONS = {ablation(ratio): ratio for ratio in RATIOS if ratio != RATIO}


@dataclass(frozen=True)
class Plan:
    """Width and heads of the networks, their blocks, training, held-out scenes, rounds of timing."""

    dim: int
    heads: int
    blocks: int
    steps: int
    batch: int
    rate: float
    held_out: int
    rounds: int


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(8, 2, 1, 2, 4, 3e-3, 8, 3),
    "default": Plan(32, 2, 2, 400, 16, 3e-3, 1000, 7),
    "full": Plan(64, 4, 2, 6000, 64, 1e-3, 4000, 15),
}
