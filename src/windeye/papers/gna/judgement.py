"""What is made of the measurements: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

import math

import torch

import windeye
from windeye.papers.denoiser import GRID
from windeye.papers.gna import speed
from windeye.papers.gna.effect import CLEAN, NOISY, SIZE, STRIDES, TIMES, Outcome, arm, cost, next_to_borders
from windeye.papers.gna.speed import Speeds, by, counted, simulated
from windeye.report import Check, Row, Verdict

NEAR, BEHIND, SHARE = 0.6, 2.0, 0.5
"""Points that an intermediate stride may cost and that blocks must cost over stride 1; clean over noisy damage."""
EFFICIENT, FASTER, RANKED = 0.5, 1.5, 0.9
"""Share of the FLOP bound that stride T reaches, its factor over stride 1, Spearman of simulated and measured."""

SPEEDUP, BOUND = "speed-up over dense, measured", "speed-up over dense, FLOP bound"
SIMULATED, COUNTED = "speed-up over dense, simulated", "speed-up over dense, idle lanes counted"
BORDER, ELSEWHERE = "loss increase next to block borders, t<=0.6", "loss increase elsewhere, t<=0.6"


def increase(t: float) -> str:
    """The metric's name."""
    return f"loss increase at t={t}"


def effect_rows(trained: list[Outcome]) -> tuple[Row, ...]:
    """Costs of every arm per t, near and away from block borders, and paired differences from stride 1."""
    rows = [Row("dense", "training loss, last 100 steps", tuple(outcome["last"] for outcome in trained))]
    for at, t in enumerate(TIMES):
        losses = (math.fsum(outcome["errors"]["dense"][at]) / GRID**2 for outcome in trained)
        rows.append(Row("dense", f"held-out loss at t={t}", tuple(losses)))
    for name in trained[0]["errors"]:
        if name != "dense":
            costs = torch.stack([cost(outcome, name) for outcome in trained], dim=1)
            rows += [Row(name, increase(t), tuple(costs[at].tolist()), "%") for at, t in enumerate(TIMES)]
    for size, strides in STRIDES.items():
        near = next_to_borders(size)
        for stride in strides:
            for metric, where in ((BORDER, near), (ELSEWHERE, ~near)):
                clean = tuple(cost(o, arm(size, stride), where)[: len(CLEAN)].mean().item() for o in trained)
                rows.append(Row(arm(size, stride), metric, clean, "%"))
        for stride in strides[1:]:
            name = f"{arm(size, stride)} minus s=1"
            for at, t in enumerate(CLEAN):
                gaps = tuple((cost(o, arm(size, stride)) - cost(o, arm(size, 1)))[at].item() for o in trained)
                rows.append(Row(name, f"paired difference at t={t}", gaps, "points"))
    return tuple(rows)


def speed_rows(timed: list[list[Speeds]]) -> tuple[Row, ...]:
    """Measured speed-ups, one value per repetition, next to what no kernel can pass and what tiles leave of it."""
    rows = []
    for index, case in enumerate(speed.CASES):
        for stride in case.strides:
            name = case.name(stride)
            density = windeye.Neighborhood(case.window, stride=stride).bind(case.grid).density()
            measured = tuple(repetition[index]["speedups"][name] for repetition in timed)
            rows += [
                Row(name, SPEEDUP, measured, "x, machine not reserved"),
                Row(name, SIMULATED, (simulated(case, stride),), "x"),
                Row(name, COUNTED, (counted(case, stride),), "x"),
                Row(name, BOUND, (1 / density,), "x"),
            ]
    return tuple(rows)


def checks(rows: tuple[Row, ...]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    mean = {(row.arm, row.metric): row.mean for row in rows}
    strides = STRIDES[SIZE]
    found = []
    for stride in strides[1:-1]:
        worst = max(_gap(mean, stride, t) for t in CLEAN)
        demand = f"W={SIZE}: stride {stride} at most {NEAR} points worse than stride 1 at t = 0.2, 0.4, 0.6"
        found.append(Check(demand, f"at most {worst:+.2f}", worst <= NEAR))
    least = min(_gap(mean, SIZE, t) for t in CLEAN)
    demand = f"W={SIZE}: blocked at least {BEHIND} points worse than stride 1 at t = 0.2, 0.4, 0.6"
    found.append(Check(demand, f"at least {least:+.2f}", least >= BEHIND))
    damage = [(_clean(mean, s), mean[arm(SIZE, s), increase(NOISY)]) for s in strides]
    demand = f"W={SIZE}: cost up to t = 0.6 at most half of that at t = {NOISY}, every stride"
    measured = ", ".join(f"{clean:.1f} to {noisy:.1f} %" for clean, noisy in damage)
    found.append(Check(demand, measured, all(clean <= SHARE * noisy and noisy > 0 for clean, noisy in damage)))
    near = {s: mean[arm(SIZE, s), BORDER] for s in strides}
    rest = max(near[s] for s in strides[:-1])
    demand = f"W={SIZE}: next to block borders blocked costs most"
    found.append(Check(demand, f"{near[SIZE]:+.1f} % against at most {rest:+.1f} %", near[SIZE] > rest))
    for case in speed.CASES:
        fitting, one = case.named(case.tile), case.named(1)
        share = mean[fitting, SPEEDUP] / mean[fitting, BOUND]
        demand = f"{by(case.grid)}: stride {case.tile} reaches {EFFICIENT:.0%} of the FLOP bound"
        found.append(Check(demand, f"{share:.0%}", share >= EFFICIENT))
        factor = mean[fitting, SPEEDUP] / mean[one, SPEEDUP]
        demand = f"{by(case.grid)}: stride {case.tile} is {FASTER} times as fast as stride 1"
        found.append(Check(demand, f"{factor:.2f} times", factor >= FASTER))
    settings = [case.name(stride) for case in speed.CASES for stride in case.strides]
    order = rank_correlation([mean[s, SIMULATED] for s in settings], [mean[s, SPEEDUP] for s in settings])
    demand = f"Spearman's correlation of simulated and measured speed-ups at least {RANKED}"
    found.append(Check(demand, f"{order:.2f} over {len(settings)} settings", order >= RANKED))
    return tuple(found)


def verdict(rows: tuple[Row, ...]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    values = {(row.arm, row.metric): row for row in rows}
    for t in CLEAN:
        blocked, one = values[arm(SIZE, SIZE), increase(t)], values[arm(SIZE, 1), increase(t)]
        always = all(b < s for b, s in zip(blocked.values, one.values, strict=True))
        if not always or one.mean - blocked.mean < BEHIND:
            return "not shown"
    return "opposite"


def _gap(mean: dict[tuple[str, str], float], stride: int, t: float) -> float:
    """Points that a stride costs more than stride 1; rounded so that a margin that is met exactly counts as met."""
    return round(mean[arm(SIZE, stride), increase(t)] - mean[arm(SIZE, 1), increase(t)], 9)


def _clean(mean: dict[tuple[str, str], float], stride: int) -> float:
    return math.fsum(mean[arm(SIZE, stride), increase(t)] for t in CLEAN) / len(CLEAN)


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's correlation; equal values share their mean rank.

    Example:
        >>> rank_correlation([1, 2, 3], [10, 30, 20])
        0.5
    """
    from scipy.stats import spearmanr

    return round(float(spearmanr(first, second).statistic), 9)
