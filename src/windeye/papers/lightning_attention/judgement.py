"""What is made of the runs: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

from windeye.papers.lightning_attention.arms import (
    ARMS,
    NO_DECAY,
    NO_FACTOR,
    NO_GATE,
    NO_LRPE,
    NO_NORM,
    NO_POSITIONS,
    TNL,
    TRANSFORMER,
    parameters,
)
from windeye.papers.lightning_attention.training import Outcome, Speeds
from windeye.papers.paired import mean, values
from windeye.report import Check, Row, Verdict

NEAR, FAR = 0.02, 0.05
"""Bits per byte: what still counts as "at most", and as "far below"."""
FLAT, FALLS = 1.3, 2.0
"""Factors over the lengths: what TNL's training speed may vary by, and what the transformer's must lose."""

BITS, TRAINED, DIVERGED = "held-out bits per byte", "training bits per byte", "runs that diverged"
PARAMETERS = "parameters"
GAP = "paired difference of held-out bits"
OVER_SHORTEST, RANGE = "training speed over that at the shortest length", "fastest over slowest length"
PARTS = (NO_LRPE, NO_FACTOR, NO_GATE, NO_NORM)
"""Arms without a part that costs little in the paper: none may be better than TNL by more than the margin."""


def at(n: str) -> str:
    return f"training bytes per second, n={n}"


def text_rows(trained: dict[str, list[Outcome]]) -> tuple[Row, ...]:
    """Scores of every arm, and how far each lies behind TNL, seed by seed."""
    rows = []
    for arm in ARMS:
        mine = trained[arm]
        rows += [
            Row(arm, BITS, tuple(outcome["bits"] for outcome in mine), "bits"),
            Row(arm, TRAINED, tuple(outcome["trained"] for outcome in mine), "bits"),
            Row(arm, DIVERGED, (float(sum(outcome["diverged"] > 0 for outcome in mine)),)),
            Row(arm, PARAMETERS, (float(parameters(arm)),)),
        ]
    for arm in ARMS[1:]:
        gaps = tuple(own["bits"] - tnl["bits"] for own, tnl in zip(trained[arm], trained[TNL], strict=True))
        rows.append(Row(f"{arm} minus {TNL}", GAP, gaps, "bits"))
    return tuple(rows)


def speed_rows(repetitions: list[Speeds]) -> tuple[Row, ...]:
    """Speeds by length, and their range over the lengths, a value per repetition."""
    rows = []
    for arm in (TNL, TRANSFORMER):
        for n in repetitions[0]["tokens_per_second"][arm]:
            speeds = tuple(r["tokens_per_second"][arm][n] for r in repetitions)
            ratios = tuple(r["over_shortest"][arm][n] for r in repetitions)
            rows += [Row(arm, at(n), speeds, "bytes/s"), Row(arm, f"{OVER_SHORTEST}, n={n}", ratios, "x")]
        ranges = [list(r["over_shortest"][arm].values()) for r in repetitions]
        rows.append(Row(arm, RANGE, tuple(max(own) / min(own) for own in ranges), "x"))
    return tuple(rows)


def checks(rows: tuple[Row, ...]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    behind = {arm: values(rows, f"{arm} minus {TNL}", GAP) for arm in (TRANSFORMER, NO_POSITIONS, NO_DECAY, *PARTS)}
    means = {arm: mean(gaps) for arm, gaps in behind.items()}
    found = [
        Check(
            f"TNL at most {NEAR} bits per byte above the transformer",
            f"transformer {means[TRANSFORMER]:+.3f}",
            means[TRANSFORMER] >= -NEAR,
        ),
        Check(
            f"without decay and positions at least {FAR} bits above TNL in every seed",
            f"at least {min(behind[NO_POSITIONS]):+.3f}",
            min(behind[NO_POSITIONS]) >= FAR,
        ),
        Check("without decay above TNL", f"{means[NO_DECAY]:+.3f}", means[NO_DECAY] > 0),
    ]
    found += [
        Check(f"{arm}: at most {NEAR} bits below TNL", f"{means[arm]:+.3f}", means[arm] >= -NEAR) for arm in PARTS
    ]
    flat, falls = (mean(values(rows, arm, RANGE)) for arm in (TNL, TRANSFORMER))
    demand = f"TNL's training speed varies by less than {FLAT}x over the lengths"
    found.append(Check(demand, f"{flat:.2f}x", flat < FLAT))
    found.append(Check(f"the transformer's varies by at least {FALLS}x", f"{falls:.2f}x", falls >= FALLS))
    return tuple(found)


def verdict(rows: tuple[Row, ...]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    behind = values(rows, f"{TRANSFORMER} minus {TNL}", GAP)
    return "opposite" if max(behind) < 0 and mean(behind) < -FAR else "not shown"
