"""Goals of the softmax suite beside what was measured: what is met, and what is not."""

from __future__ import annotations

from typing import Any

from windeye.bench.softmax import CASES, Goal
from windeye.bench.table import ratio

COLUMNS = ("goal", "minimum", "aim", "measured", "")

SLOWEST_GROWTH = 1.2
"""Time of 256 x 256 tokens over that of sixteen times 64 x 64."""
RANKED = 0.9
"""Spearman's correlation of predicted and measured speed-ups."""


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per goal. Forward and backward together must reach half of what the forward pass must."""
    parts = result["parts"]
    found = []
    for case in CASES:
        forward, training = parts[f"forward {case.name}"], parts[f"training {case.name}"]
        found.append(_row(f"{case.name}: forward over dense", case.dense, forward["over_dense"]))
        if case.flex is not None:
            found.append(_row(f"{case.name}: forward over FlexAttention", case.flex, forward["over_flex"]))
        half = Goal(case.dense.minimum / 2, case.dense.aim / 2)
        found.append(_row(f"{case.name}: forward + backward over dense", half, training["over_dense"]))
        found.append(
            _row(f"{case.name}: bfloat16 over float32", Goal(1, 1), parts[f"bfloat16 {case.name}"]["over_float32"])
        )
    growth, rank = parts["scaling"]["ratio"], parts["ranking"]["spearman"]
    growth_met, rank_met = _met(growth <= SLOWEST_GROWTH), _met(rank >= RANKED)
    found.append(("256x256 tokens over 16 times 64x64", f"{SLOWEST_GROWTH}x", "", f"{growth:.2f}x", growth_met))
    found.append(("Spearman of simulated and measured", f"{RANKED}", "", f"{rank:.2f}", rank_met))
    return found


def _row(name: str, goal: Goal, measured: float) -> tuple[str, ...]:
    met = "aim met" if measured >= goal.aim else _met(measured >= goal.minimum)
    return name, ratio(goal.minimum), ratio(goal.aim), ratio(measured), met


def _met(reached: bool) -> str:
    return "met" if reached else "**missed**"
