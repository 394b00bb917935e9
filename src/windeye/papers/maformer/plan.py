"""The arms of the experiment, and what each budget takes."""

from __future__ import annotations

from windeye.papers.experiment import Budget
from windeye.papers.scene_plan import ScenePlan

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


PLANS: dict[Budget, ScenePlan] = {
    "smoke": ScenePlan(8, 2, 1, 2, 4, 3e-3, 8, 3),
    "default": ScenePlan(32, 2, 2, 400, 16, 3e-3, 1000, 7),
    "full": ScenePlan(64, 4, 2, 6000, 64, 1e-3, 4000, 15),
}
