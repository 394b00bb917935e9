"""What is made of the outcomes: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from windeye.papers.context_awareness.needle import LAYOUTS, READ, Answers, mean_recall
from windeye.papers.context_awareness.plan import ALPHAS, LAYER
from windeye.papers.context_awareness.tuning import ARMS, Outcome
from windeye.report import Check, Row, Verdict

LEARNED, LOST, GAIN, SAME, INTACT = 95.0, 30.0, 40.0, 20.0, 95.0
"""Percent that the model reads before tuning, and at most afterwards; points by which the marker must raise that, also
against markers at random; points that random markers may add; percent of the memorised answers in every arm."""
STEERED, FALLS, SEPARATES = 20.0, 2.0, 0.8
"""Points that steering must add somewhere, also against steering to the rest; points it may lose between one alpha and
the next; area under the curve."""
RISING = (1.0, 0.95, 0.9, 0.5, 0.2)
"""Strengths of steering along which recall must rise. Beyond, so little weight is left elsewhere that the model loses
its place."""

BEFORE = "before tuning"
PASSAGE, MARKED, MEMORY = "recall of the passage", "recall of the passage, marked", "memorised answers"
MEMORY_MARKED = "memorised answers, marked"
VANILLA, TOLD, RANDOM = "vanilla", "marked", "marked at random"
NEEDLE = "recall of the needle"


def rows_of(outcomes: Sequence[Outcome], answers: Answers | None) -> tuple[Row, ...]:
    """A row per arm and metric, with a value per seed; those of the real model with a value per length and depth."""
    rows: list[Row] = []
    for arm in (BEFORE, *ARMS):
        found = [outcome["before"] if arm == BEFORE else outcome["arms"][arm] for outcome in outcomes]
        rows += [
            Row(arm, PASSAGE, tuple(one["passage"] for one in found), "share"),
            Row(arm, MARKED, tuple(one["passage_marked"] for one in found), "share"),
            Row(arm, MEMORY, tuple(one["memory"] for one in found), "share"),
            Row(arm, MEMORY_MARKED, tuple(one["memory_marked"] for one in found), "share"),
        ]
    for arm in outcomes[0]["steering"]:
        for place, first in enumerate(outcomes[0]["steering"][arm]):
            found_here = [outcome["steering"][arm][place] for outcome in outcomes]
            name = steered(arm, first["span"], first["alpha"])
            rows += [
                Row(name, PASSAGE, tuple(one["passage"] for one in found_here), "share"),
                Row(name, MEMORY, tuple(one["memory"] for one in found_here), "share"),
            ]
    for place, separation in enumerate(outcomes[0]["separations"]):
        values = [outcome["separations"][place] for outcome in outcomes]
        name = score(separation["span"], separation["reduce"], separation["layer"])
        against = f"AUROC against {separation['against']}"
        rows.append(Row(name, against, tuple(one["auroc"] for one in values)))
        rows.append(Row(name, "mean of answers from the passage", tuple(one["means"][0] for one in values)))
        rows.append(Row(name, f"mean of {separation['against']}", tuple(one["means"][1] for one in values)))
    for what in outcomes[0]["marks"]:
        rows.append(Row("marks by score", what, tuple(outcome["marks"][what] for outcome in outcomes)))
    # The mean of answers from the passage comes once per comparison.
    unique = {(row.arm, row.metric): row for row in rows}
    return (*unique.values(), *(needle_rows(answers) if answers else ()))


def steered(arm: str, span: str, alpha: float) -> str:
    """The name of an arm that is steered.

    Example:
        >>> steered("vanilla", "passage", 0.5)
        'vanilla, steered to passage, alpha 0.5'
    """
    return f"{arm}, steered to {span}, alpha {alpha:g}"


def score(span: str, reduce: str, layer: int) -> str:
    """The name of a score."""
    return f"score: {span}, {reduce} over heads, layer {layer}"


def needle_rows(answers: Answers) -> tuple[Row, ...]:
    """Recall of a real model by arm and length, and where it looks."""
    cells = answers["cells"]
    lengths = sorted({cell["length"] for cell in cells})
    rows = [Row("SmolLM2", f"{what}, CPU seconds", (taken,), "s") for what, taken in answers["passes"].items()]
    for arm in cells[0]["recall"]:
        rows.append(Row(f"SmolLM2, {arm}", NEEDLE, mean_recall(cells, arm), "share"))
        rows += [
            Row(f"SmolLM2, {arm}", f"{NEEDLE}, {length} tokens", mean_recall(cells, arm, length), "share")
            for length in lengths
        ]
    for layout in LAYOUTS:
        rows += [
            Row(f"SmolLM2, {layout}", f"weight on {what}", tuple(c["allocation"][layout][what] for c in cells), "share")
            for what in (*READ, "user of the rest")
        ]
    return tuple(rows)


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    values = {(row.arm, row.metric): row.values for row in rows}

    def percent(arm: str, metric: str = PASSAGE) -> float:
        return round(100 * math.fsum(values[arm, metric]) / len(values[arm, metric]), 9)

    vanilla = percent(VANILLA)
    told, random = percent(TOLD, MARKED), percent(RANDOM, MARKED)
    intact = min(percent(arm, MEMORY) for arm in ARMS)
    course = [vanilla, *(percent(steered(VANILLA, "passage", alpha)) for alpha in RISING[1:])]
    best = max(percent(steered(VANILLA, "passage", alpha)) for alpha in ALPHAS)
    rest = max(percent(steered(VANILLA, "rest", alpha)) for alpha in ALPHAS)
    worst = min(later - earlier for earlier, later in pairwise(course))
    areas = values[score("passage", "mean", LAYER), "AUROC against memory"]
    gains = (told - vanilla, told - random)
    return (
        Check(f"reads at least {LEARNED:g} % before tuning", f"{percent(BEFORE):.1f} %", percent(BEFORE) >= LEARNED),
        Check(f"vanilla reads at most {LOST:g} % afterwards", f"{vanilla:.1f} %", vanilla <= LOST),
        Check(
            f"marked at test, the marked arm reads at least {GAIN:g} points more than vanilla and the random arm",
            ", ".join(f"{gain:+.1f}" for gain in gains),
            min(gains) >= GAIN,
        ),
        Check(
            f"random markers add at most {SAME:g} points to vanilla",
            f"{random - vanilla:+.1f}",
            random - vanilla <= SAME,
        ),
        Check(f"memorised answers at least {INTACT:g} % in every arm", f"{intact:.1f} %", intact >= INTACT),
        Check(
            f"steered to the passage, vanilla loses at most {FALLS:g} points a step up to alpha {RISING[-1]:g}",
            ", ".join(f"{value:.1f}" for value in course),
            worst >= -FALLS,
        ),
        Check(
            f"and the best alpha adds at least {STEERED:g} points, also against the best towards the rest",
            f"{best - vanilla:+.1f}, {best - rest:+.1f}",
            best - max(vanilla, rest) >= STEERED,
        ),
        Check(
            f"area under the curve of the passage's score, mean over heads, at least {SEPARATES:g} in every seed",
            f"least {min(areas):.3f}",
            min(areas) >= SEPARATES,
        ),
    )


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    values = {(row.arm, row.metric): row.values for row in rows}
    pairs = zip(values[RANDOM, MARKED], values[TOLD, MARKED], strict=True)
    return "opposite" if all(random > told for random, told in pairs) else "not shown"
