"""What is made of the outcomes: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

import math

from windeye.data.tasks import MQAR
from windeye.papers.dma.arms import ARMS, BEST, DMA, EQUAL, FULL, RANDOM, WINDOW
from windeye.papers.dma.training import BINS, Outcome
from windeye.papers.paired import ahead, mean, values
from windeye.report import Check, Row, Verdict

NEAR, FAR, AHEAD, KEPT = 5.0, 30.0, 20.0, 0.9
"""Points below full attention; points above the window; points above random keys; share of the values held."""
LEARNED = 0.9
"""Recall that only a trained choice of keys, or seeing all of them, can reach. The rule does not read it."""

ACCURACY, VALUES, KEYS, CHANCE = "recall", "values held at the last query", "keys held", "held by chance"

Outcomes = dict[tuple[str, int], Outcome]


def rows_of(outcomes: Outcomes, rates: dict[str, float], seeds: tuple[int, ...], task: MQAR) -> tuple[Row, ...]:
    """Rows of every arm, and paired differences between DMA and the others."""
    rows = []
    for arm in ARMS:
        mine = [outcomes[arm.name, seed] for seed in seeds]
        rows += [
            Row(arm.name, ACCURACY, tuple(outcome["accuracy"] for outcome in mine), "share"),
            Row(arm.name, "steps", tuple(float(outcome["steps"]) for outcome in mine)),
            Row(arm.name, "rate", (rates[arm.name],)),
            Row(arm.name, "state", (float(mine[0]["state_bytes"]),), "bytes"),
        ]
        for place in range(BINS):
            shares = tuple(o["hits"][place] / o["asked"][place] for o in mine if o["asked"][place])
            if shares:
                rows.append(Row(arm.name, distance(place, task.length), shares, "share"))
        for metric, first in ((KEYS, 0), (VALUES, 1)):
            found = [outcome["kept"] for outcome in mine if outcome["kept"] is not None]
            held = [math.fsum(shares[first : 2 * task.pairs : 2]) / task.pairs for shares in found]
            if held:
                rows.append(Row(arm.name, metric, tuple(held), "share"))
        if arm.name == DMA:
            rows.append(Row(arm.name, "A", tuple(outcome["factor"][0] for outcome in mine)))
            rows.append(Row(arm.name, CHANCE, tuple(outcome["chance"] for outcome in mine), "share"))
        learned = sum(outcome["accuracy"] >= LEARNED for outcome in mine)
        rows.append(Row(arm.name, f"seeds with recall of at least {LEARNED}", (float(learned),), f"of {len(mine)}"))
    for other in (FULL, WINDOW, BEST, RANDOM, EQUAL):
        gaps = (100 * (outcomes[DMA, s]["accuracy"] - outcomes[other, s]["accuracy"]) for s in seeds)
        rows.append(Row(f"{DMA} minus {other}", "paired difference in recall", tuple(gaps), "points"))
    return tuple(rows)


def distance(place: int, length: int) -> str:
    """The metric of a bin of distances.

    Example:
        >>> distance(1, length=128)
        'recall over 16 to 31 tokens'
    """
    first, end = (-(-at * length // BINS) for at in (place, place + 1))
    return f"recall over {first} to {end - 1} tokens"


def checks(rows: tuple[Row, ...]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    gaps = {other: ahead(rows, DMA, other, ACCURACY, scale=100) for other in (FULL, WINDOW, EQUAL, RANDOM)}
    means = {other: mean(found) for other, found in gaps.items()}
    held = mean(values(rows, DMA, VALUES))
    return (
        Check(f"{DMA} at most {NEAR:g} points below {FULL}", f"{means[FULL]:+.1f}", means[FULL] >= -NEAR),
        Check(f"{DMA} at least {FAR:g} points above {WINDOW}", f"{means[WINDOW]:+.1f}", means[WINDOW] >= FAR),
        Check(f"{DMA} at least {FAR:g} points above {EQUAL}", f"{means[EQUAL]:+.1f}", means[EQUAL] >= FAR),
        Check(
            f"{DMA} at least {AHEAD:g} points above {RANDOM}, and above in every seed",
            f"{means[RANDOM]:+.1f}, least {min(gaps[RANDOM]):+.1f}",
            means[RANDOM] >= AHEAD and min(gaps[RANDOM]) > 0,
        ),
        Check(f"{DMA} holds at least {KEPT:.0%} of the values at the last query", f"{held:.1%}", held >= KEPT),
    )


def verdict(rows: tuple[Row, ...]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    behind = ahead(rows, WINDOW, DMA, ACCURACY, scale=100)
    return "opposite" if min(behind) > 0 and mean(behind) > NEAR else "not shown"
