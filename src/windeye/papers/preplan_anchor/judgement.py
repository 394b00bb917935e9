"""From what was measured to rows, gates and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windeye.papers.preplan_anchor.policy import BOTTOM, COUPLED, RANDOM, UNIFORM, Course
from windeye.papers.preplan_anchor.reading import LAG, Chance, Reading
from windeye.papers.preplan_anchor.signals import Signals
from windeye.papers.preplan_anchor.toy import Learned
from windeye.report import Check, Row, Verdict

RATIO, LIFT, PLACED, EVEN, LEARNED = 1.3, 2.0, 1.3, 0.15, 0.95
"""Least ratio of WAAD; least lift of peaks of FAI, over all tokens and over the same places of other texts; how far an
untrained model's ratio may be from 1, and its lift over places above 1; accuracy of a model that has learned."""

TYPED, ALL_HEADS, UNTRAINED = "typed heads", "all heads", "untrained, typed heads"
WAAD_RATIO = "WAAD at chunk starts over inside chunks"
FAI_LIFT, PLACED_LIFT = "lift of defining values among FAI peaks", "lift over the same places of other texts"
FIRST, INSIDE = "accuracy at chunk starts", "accuracy inside chunks"
AREA, LAST = "mean reward over training", "mean reward of the last quarter"
TEXT = "real text"

ARMS = (TYPED, ALL_HEADS, UNTRAINED)
"""Ways of reading the signals off the toy."""

READINGS: dict[str, tuple[str, str]] = {
    "follows": (f"FAI peaks at or up to {LAG} tokens behind a WAAD peak", "share"),
    "entropy": ("entropy of the prediction made at WAAD peaks", "nats"),
    "own_entropy": ("entropy of the prediction of the token at WAAD peaks", "nats"),
}


def toy_rows(
    learned: Sequence[Learned], arms: dict[str, Sequence[Signals]], courses: dict[str, Sequence[Course]]
) -> tuple[Row, ...]:
    """Rows of the toy, with a value per seed: training, both signals by arm, rewards by rule of credit."""
    rows = [
        Row("toy", FIRST, tuple(one["first"] for one in learned), "share"),
        Row("toy", INSIDE, tuple(one["inside"] for one in learned), "share"),
        Row("toy", "steps", tuple(float(one["steps"]) for one in learned)),
        Row("toy", "steps of the half-trained policy", tuple(float(one["half_step"]) for one in learned)),
    ]
    for arm, found in arms.items():
        rows += [
            Row(arm, WAAD_RATIO, tuple(one["ratio"] for one in found)),
            Row(arm, "WAAD at chunk starts", tuple(one["start"] for one in found), "tokens"),
            Row(arm, "WAAD inside chunks", tuple(one["inside"] for one in found), "tokens"),
            Row(arm, FAI_LIFT, tuple(one["lift"] for one in found)),
            Row(arm, PLACED_LIFT, tuple(one["placed_lift"] for one in found)),
            Row(arm, "FAI of defining values", tuple(one["defining_fai"] for one in found)),
            Row(arm, "FAI of other tokens", tuple(one["other_fai"] for one in found)),
        ]
        if arm != ALL_HEADS:
            rows += [
                Row(arm, "mean span of local heads", tuple(one["local_span"] for one in found), "tokens"),
                Row(arm, "mean span of global heads", tuple(one["global_span"] for one in found), "tokens"),
            ]
    for rule, runs in courses.items():
        rows += [
            Row(rule, AREA, tuple(mean(one["rewards"]) for one in runs), "share"),
            Row(rule, LAST, tuple(mean(one["rewards"][3 * len(one["rewards"]) // 4 :]) for one in runs), "share"),
        ]
    if COUPLED in courses:
        shares = tuple(one["reading"] / one["seconds"] for one in courses[COUPLED])
        rows.append(Row(COUPLED, "share of the time that reading both signals takes", shares, "share"))
    for other in (UNIFORM, RANDOM, BOTTOM):
        if {other, COUPLED} <= courses.keys():
            pairs = zip(courses[COUPLED], courses[other], strict=True)
            gaps = tuple(100 * (mean(a["rewards"]) - mean(b["rewards"])) for a, b in pairs)
            rows.append(Row(f"{COUPLED} minus {other}", "paired difference of mean rewards", gaps, "points"))
    return tuple(rows)


def text_rows(reading: Reading) -> tuple[Row, ...]:
    """Rows of the real model: what was seen, what rotations give, and how often they give as much."""
    rows = []
    for name, view in reading["views"].items():
        for field, (metric, unit) in READINGS.items():
            rows += _against_chance(f"{TEXT}, {name}", metric, unit, view[field])  # type: ignore[literal-required]
        for field, metric in (("local_span", "local"), ("global_span", "global")):
            span: float = view[field]  # type: ignore[literal-required]
            rows.append(Row(f"{TEXT}, {name}", f"mean span of {metric} heads", (span,), "tokens"))
    rows += _against_chance(TEXT, "tokens without letter or digit among FAI peaks", "share", reading["marks"])
    rows += [
        Row(TEXT, "mean weight on the first token", (reading["first_token"],), "share"),
        Row(TEXT, "tokens read", (float(reading["tokens"]),)),
    ]
    return tuple(rows)


def _against_chance(arm: str, metric: str, unit: str, found: Chance) -> list[Row]:
    return [
        Row(arm, metric, (found["seen"],), unit),
        Row(arm, f"{metric}, rotated", (found["chance"],), unit),
        Row(arm, f"{metric}, share of rotations that reach it", (found["p"],)),
    ]


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone; rewards and real text are reported and decide nothing.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    values = {(row.arm, row.metric): row.values for row in rows}
    means = {place: mean(found) for place, found in values.items()}
    ratio, every = means[TYPED, WAAD_RATIO], means[ALL_HEADS, WAAD_RATIO]
    lift, placed = means[TYPED, FAI_LIFT], means[TYPED, PLACED_LIFT]
    even, even_lift = means[UNTRAINED, WAAD_RATIO], means[UNTRAINED, PLACED_LIFT]
    least = min(*values["toy", FIRST], *values["toy", INSIDE])
    return (
        Check(f"every toy names at least {LEARNED:.0%} of both kinds of numbers", f"{least:.1%}", least >= LEARNED),
        Check(f"WAAD at least {RATIO} times higher at chunk starts than inside chunks", f"{ratio:.2f}", ratio >= RATIO),
        Check("a higher ratio than with all heads averaged", f"{ratio:.2f} against {every:.2f}", ratio > every),
        Check(
            f"defining values at least {LIFT:g} times as frequent among FAI peaks as among all tokens, and at least "
            f"{PLACED} times as frequent as at the same places of other texts",
            f"{lift:.2f}, {placed:.2f}",
            lift >= LIFT and placed >= PLACED,
        ),
        Check(
            f"an untrained model shows neither: ratio within {EVEN} of 1, lift over places at most {1 + EVEN}",
            f"{even:.2f}, {even_lift:.2f}",
            abs(even - 1) <= EVEN and even_lift <= 1 + EVEN,
        ),
    )


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    values = {(row.arm, row.metric): row.values for row in rows}
    learned = min(*values["toy", FIRST], *values["toy", INSIDE]) >= LEARNED
    reversed_ = max(values[TYPED, WAAD_RATIO]) < 1 and max(values[TYPED, PLACED_LIFT]) < 1
    return "opposite" if learned and reversed_ else "not shown"


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
