"""The arms of the experiment, and what each budget takes."""

from __future__ import annotations

from windeye.nn.mixers import FullSpec, HiLoSpec, SpatialReductionSpec, TokenMixerSpec, WindowSpec
from windeye.papers.experiment import Budget
from windeye.papers.scene_plan import ScenePlan

ALPHAS = (0.0, 0.5, 0.9, 1.0)
SPLIT = (0.5, 0.9)
"""Shares of low heads that leave heads of both kinds."""
FULL, REDUCED, WINDOWS, NONE = "full attention", "spatial reduction by 2", "windows of 4", "no attention"


def hilo(alpha: float) -> str:
    """The name of an arm."""
    return f"HiLo, alpha {alpha:g}"


ARMS: dict[str, TokenMixerSpec | None] = {
    FULL: FullSpec(),
    REDUCED: SpatialReductionSpec(2),
    WINDOWS: WindowSpec(4, bias_table=False),
    **{hilo(alpha): HiLoSpec(2, alpha) for alpha in ALPHAS},
    NONE: None,
}


PLANS: dict[Budget, ScenePlan] = {
    "smoke": ScenePlan(12, 6, 2, 2, 2, 3e-3, 4, 1),
    "default": ScenePlan(48, 4, 3, 320, 16, 5e-3, 512, 9),
    "full": ScenePlan(96, 6, 4, 3000, 32, 1e-3, 512, 15),
}
