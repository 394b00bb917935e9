"""What is made of the measurements: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.hilo.plan import ALPHAS, ARMS, FULL, REDUCED, SPLIT, WINDOWS, hilo
from windeye.papers.hilo.training import Outcome, Speeds
from windeye.report import Check, Row, Verdict

NEAR = 1.0
"""Points of accuracy that a split may lie below full attention."""
ACCURACY, SPEED = "accuracy on covered tokens", "scenes per second"
KINDS = ("high", "low")
PEERS = (FULL, REDUCED, WINDOWS)


def share_of(layer: int, kind: str) -> str:
    """The metric's name."""
    return f"energy above half of Nyquist, layer {layer}, {kind} heads"


def rows_of(trained: dict[str, list[Outcome]], timed: Sequence[Speeds]) -> tuple[Row, ...]:
    """Accuracy, speed and size of every arm, and shares of energy where there are two kinds of heads."""
    rows = []
    for arm, outcomes in trained.items():
        rows += [
            Row(arm, ACCURACY, tuple(o["accuracy"] for o in outcomes), "share"),
            Row(arm, SPEED, tuple(t["scenes"][arm] for t in timed), "1/s, machine not reserved"),
            Row(arm, "training loss, last tenth", tuple(o["loss"] for o in outcomes)),
            Row(arm, "parameters", (float(outcomes[0]["parameters"]),)),
        ]
        for layer in range(len(outcomes[0]["shares"])):
            for index, kind in enumerate(KINDS):
                values = tuple(o["shares"][layer][index] for o in outcomes)
                rows.append(Row(arm, share_of(layer, kind), values, "share"))
    return tuple(rows)


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    mean = {(row.arm, row.metric): row.mean for row in rows}
    points = {arm: 100 * mean[arm, ACCURACY] for arm in ARMS}
    found = []
    for alpha in SPLIT:
        behind = round(points[FULL] - points[hilo(alpha)], 9)
        demand = f"{hilo(alpha)}: at most {NEAR:g} point below full attention"
        found.append(Check(demand, f"{-behind:+.1f}", behind <= NEAR))
        ahead = round(min(points[hilo(alpha)] - points[peer] for peer in (REDUCED, WINDOWS)), 9)
        demand = f"{hilo(alpha)}: not below windows, nor spatial reduction"
        found.append(Check(demand, f"at least {ahead:+.1f}", ahead >= 0))
    lowest = min(ALPHAS, key=lambda alpha: points[hilo(alpha)])
    found.append(Check("of all alphas 0 names fewest", f"alpha {lowest:g}", lowest == 0.0))
    best = max(SPLIT, key=lambda alpha: mean[hilo(alpha), SPEED])
    for peer in PEERS:
        factor = mean[hilo(best), SPEED] / mean[peer, SPEED]
        demand = f"a split HiLo is faster than {peer}"
        found.append(Check(demand, f"{factor:.2f} times, {hilo(best)}", factor > 1))
    for alpha in SPLIT:
        pairs = [(_mean(mean, hilo(alpha), layer, "high"), _mean(mean, hilo(alpha), layer, "low"))
                 for layer in layers(rows, hilo(alpha))]  # fmt: skip
        demand = f"{hilo(alpha)}: more fine detail in high than in low heads, every layer"
        told = ", ".join(f"{high:.2f} to {low:.2f}" for high, low in pairs)
        found.append(Check(demand, told, bool(pairs) and all(high > low for high, low in pairs)))
        gap = sum(high - low for high, low in pairs) / max(1, len(pairs))
        alike = [abs(_mean(mean, FULL, layer, "high") - _mean(mean, FULL, layer, "low"))
                 for layer in layers(rows, FULL)]  # fmt: skip
        demand = f"{hilo(alpha)}: that gap is larger than between halves of the heads of full attention"
        found.append(Check(demand, f"{gap:.3f} against {sum(alike) / len(alike):.3f}", gap > sum(alike) / len(alike)))
    return tuple(found)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    values = {row.arm: row.values for row in rows if row.metric == ACCURACY}
    seeds = zip(*(values[arm] for arm in (hilo(SPLIT[0]), hilo(SPLIT[1]), REDUCED, WINDOWS)), strict=True)
    return "opposite" if all(max(half, most) < min(pooled, near) for half, most, pooled, near in seeds) else "not shown"


def layers(rows: Sequence[Row], arm: str) -> list[int]:
    """Layers of an arm whose shares of energy are among the rows."""
    metrics = {row.metric for row in rows if row.arm == arm}
    count = 0
    while share_of(count, KINDS[0]) in metrics:
        count += 1
    return list(range(count))


def _mean(mean: dict[tuple[str, str], float], arm: str, layer: int, kind: str) -> float:
    return mean[arm, share_of(layer, kind)]
