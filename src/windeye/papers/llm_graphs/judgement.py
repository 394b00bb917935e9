"""What is made of the outcomes: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windeye.papers.llm_graphs.baselines import TEXT
from windeye.papers.llm_graphs.plan import ARMS, DIGITS, FULL, HORIZONS, SYNTAX, arm
from windeye.papers.llm_graphs.training import Outcome
from windeye.report import Check, Row, Verdict
from windeye.report.divergence import jensen_shannon

READ, FAR, TOLERANCE, NEAR = 10.0, 3.0, 1.0, 1.5
"""Points above the text alone; points by which broken structure hurts one graph more; points that are nothing; the
largest preference, or its inverse, that is near 1."""

ACCURACY, PREFERENCE, BEFORE = "accuracy", "own parent over other parents, no mask", "the same before training"
MOVED = ("I", "II", "III")
"""Perturbations that bring in no other nodes."""

Outcomes = dict[tuple[str, int, int], Outcome]
"""By graph, horizon of training and seed."""


def of(graph: str, horizon: int) -> str:
    """The name of an arm."""
    return f"{graph}, {arm(horizon)}"


def drop(perturbation: str) -> str:
    """The metric of what a perturbation costs."""
    return f"loss by perturbation {perturbation}"


def rows_of(
    outcomes: Outcomes,
    known: dict[tuple[str, int], dict[str, float]],
    homophily: dict[str, float],
    seeds: Sequence[int],
) -> tuple[Row, ...]:
    """Rows of every arm, of what is known without reading, and of the graphs."""
    rows: list[Row] = []
    for graph, horizons in ARMS.items():
        rows.append(Row(graph, "edges within a class", (homophily[graph],), "share"))
        rows += [
            Row(f"{graph}, {name}", ACCURACY, tuple(known[graph, seed][name] for seed in seeds), "share")
            for name in known[graph, seeds[0]]
        ]
        for horizon in horizons:
            rows += _rows_of_arm(of(graph, horizon), [outcomes[graph, horizon, seed] for seed in seeds], horizon)
    return tuple(rows)


def _rows_of_arm(name: str, mine: Sequence[Outcome], horizon: int) -> list[Row]:
    looks = [run["attention"] for run in mine]
    rows = [Row(name, ACCURACY, tuple(run["accuracy"] for run in mine), "share")]
    for other in HORIZONS:
        values = tuple(run["through"][str(other)] for run in mine)
        rows.append(Row(name, f"accuracy read with {arm(other)}", values, "share"))
    for broken in mine[0]["broken"]:
        values = tuple(100 * (run["accuracy"] - run["broken"][broken]) for run in mine)
        rows.append(Row(name, drop(broken), values, "points"))
    rows += [
        Row(name, PREFERENCE, tuple(look["preference"] or 0.0 for look in looks)),
        Row(name, BEFORE, tuple(run["before"]["preference"] or 0.0 for run in mine)),
        Row(name, "text to centre", tuple(look["text_to_centre"] for look in looks), "share"),
        Row(name, "text to other nodes", tuple(look["text_to_nodes"] for look in looks), "share"),
        Row(name, "nodes to text", tuple(look["node_to_text"] for look in looks), "share"),
        Row(name, "shift of what text receives", tuple(map(shift_of_text, mine)), "nats"),
        Row(name, "shift of what nodes receive", tuple(map(shift_of_nodes, mine)), "nats"),
    ]
    slots = min(len(look["by_slot"]) for look in looks)
    rows += [
        Row(name, f"child {slot + 1} to own parent", tuple(look["by_slot"][slot] for look in looks), "share")
        for slot in range(slots)
    ]
    if horizon == FULL:
        rows += [Row(name, pair, tuple(look["pairs"][pair] for look in looks), "share") for pair in looks[0]["pairs"]]
    rows.append(Row(name, "diverged", (float(sum(run["diverged"] for run in mine)),), "runs"))
    return rows


def shift_of_text(run: Outcome) -> float:
    """Jensen–Shannon divergence of what text tokens receive before and after training."""
    return jensen_shannon(run["before"]["text_received"], run["attention"]["text_received"])


def shift_of_nodes(run: Outcome) -> float:
    """As `shift_of_text`, of the tokens of the tree."""
    return jensen_shannon(run["before"]["node_received"], run["attention"]["node_received"])


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    table = {(row.arm, row.metric): row for row in rows}
    points = {name: 100 * row.mean for (name, metric), row in table.items() if metric == ACCURACY}
    full, text = points[of(SYNTAX, FULL)], points[f"{SYNTAX}, {TEXT}"]
    zero, one, two = (points[of(SYNTAX, k)] for k in (0, 1, 2))
    gaps = hurt(rows)
    gap = math.fsum(gaps) / len(gaps)
    likes = {k: table[of(SYNTAX, k), PREFERENCE].mean for k in (1, 2, FULL)}
    return (
        Check(
            f"{SYNTAX}: full attention at least {READ:g} points above the text alone",
            f"{full - text:+.1f}",
            round(full - text, 9) >= READ,
        ),
        Check(
            f"moved nodes cost at least {FAR:g} points more on {SYNTAX} than on {DIGITS}, and more in every seed",
            f"{gap:+.1f}, least {min(gaps):+.1f}",
            round(gap, 9) >= FAR and min(gaps) > 0,
        ),
        Check(
            f"{SYNTAX}: horizons 1 and 2 at most {TOLERANCE:g} points below 0",
            f"{one - zero:+.1f}, {two - zero:+.1f}",
            round(min(one, two) - zero, 9) >= -TOLERANCE,
        ),
        Check(
            f"{SYNTAX}: full attention at most {TOLERANCE:g} points above horizon 2",
            f"{full - two:+.1f}",
            round(full - two, 9) <= TOLERANCE,
        ),
        Check(
            f"{SYNTAX}: full attention prefers the own parent by a factor of {1 / NEAR:.2f} to {NEAR:g}",
            f"{likes[FULL]:.2f}",
            1 / NEAR <= likes[FULL] <= NEAR,
        ),
        Check(
            f"{SYNTAX}: trained with horizons 1 and 2 it is more than 1, and more than with full attention",
            f"{likes[1]:.2f}, {likes[2]:.2f}",
            min(likes[1], likes[2]) > max(1.0, likes[FULL]),
        ),
    )


def hurt(rows: Sequence[Row]) -> list[float]:
    """By seed, how many points more moved nodes cost on syntax than on digits, the mean over `MOVED`."""
    table = {(row.arm, row.metric): row.values for row in rows}
    losses = [
        [table[of(graph, FULL), drop(name)] for name in MOVED] for graph in (SYNTAX, DIGITS)
    ]  # fmt: skip
    means = [[math.fsum(values) / len(values) for values in zip(*graph, strict=True)] for graph in losses]
    return [a - b for a, b in zip(*means, strict=True)]


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rule says about these rows."""
    found = checks(rows)
    if all(check.held for check in found):
        return "shown"
    return "opposite" if max(hurt(rows)) < 0 else "not shown"
