"""What is made of the measurements: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windeye.papers.maformer.plan import ARMS, CONCAT, GLOBAL, LOCAL, MAF, SUM
from windeye.papers.maformer.speed import BLOCK, Speeds
from windeye.papers.maformer.training import Outcome
from windeye.papers.paired import ahead, mean, told
from windeye.report import Check, Row, Verdict

AHEAD = 1.0
"""Points of scenes with both digits right by which fusion by attention must be ahead of the sum."""
WEAK = 10.0
"""Points by which a branch alone must be behind on the digit of the other's scale."""
JOINT, LARGE, SMALL = "both digits right", "large digit right", "small digit right"
SHARE = "of the time of a block of fusion"


def rows_of(trained: Mapping[str, Sequence[Outcome]], timed: Mapping[str, Speeds]) -> tuple[Row, ...]:
    """Shares of scenes, size and time of every arm; time of a block and of its parts."""
    rows = []
    for arm, outcomes in trained.items():
        rows += [
            Row(arm, JOINT, tuple(100 * o["joint"] for o in outcomes), "%"),
            Row(arm, LARGE, tuple(100 * o["large"] for o in outcomes), "%"),
            Row(arm, SMALL, tuple(100 * o["small"] for o in outcomes), "%"),
            Row(arm, "training loss, last tenth", tuple(o["loss"] for o in outcomes)),
            Row(arm, "parameters", (float(outcomes[0]["parameters"]),)),
            Row(arm, "training and test", tuple(o["seconds"] for o in outcomes), "s, machine not reserved"),
        ]
    for case, found in timed.items():
        whole = found["medians"][BLOCK]
        rows.append(Row(BLOCK, f"time, {case}", (1000 * whole,), "ms, machine not reserved"))
        rows += [
            Row(part, f"{SHARE}, {case}", (seconds / whole,))
            for part, seconds in found["medians"].items()
            if part != BLOCK
        ]
    return tuple(rows)


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    sizes = [row.mean for row in rows if row.metric == "parameters" and row.arm in ARMS]
    spread = max(sizes) / min(sizes) - 1
    over_concat, over_sum = ahead(rows, MAF, CONCAT, JOINT), ahead(rows, MAF, SUM, JOINT)
    concat_over_sum = mean(ahead(rows, CONCAT, SUM, JOINT))
    over_lone = [min(pair) for pair in zip(*(ahead(rows, MAF, arm, JOINT) for arm in (LOCAL, GLOBAL)), strict=True)]
    large, small = mean(ahead(rows, MAF, LOCAL, LARGE)), mean(ahead(rows, MAF, GLOBAL, SMALL))
    return (
        Check("sizes within 2 %", f"{100 * spread:.2f} %", spread <= 0.02),
        Check(
            "attention is ahead of concatenation, on the mean and in every seed",
            told(over_concat), mean(over_concat) > 0 and min(over_concat) > 0,
        ),
        Check(
            f"attention is ahead of the sum by {AHEAD:g} point on the mean, and in every seed",
            told(over_sum), mean(over_sum) >= AHEAD and min(over_sum) > 0,
        ),
        Check("concatenation is not behind the sum, on the mean", f"{concat_over_sum:+.1f}", concat_over_sum >= 0),
        Check("attention is ahead of either branch alone, in every seed", told(over_lone), min(over_lone) > 0),
        Check(f"the local branch is {WEAK:g} points behind on the large digit", f"{-large:+.1f}", large >= WEAK),
        Check(f"the global branch is {WEAK:g} points behind on the small digit", f"{-small:+.1f}", small >= WEAK),
    )  # fmt: skip


def verdict(rows: Sequence[Row]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    behind = ahead(rows, SUM, MAF, JOINT)
    return "opposite" if mean(behind) >= AHEAD and min(behind) > 0 else "not shown"
