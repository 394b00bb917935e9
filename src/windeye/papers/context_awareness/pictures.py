"""What was read, in pictures."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.context_awareness.judgement import (
    BEFORE,
    MARKED,
    MEMORY,
    NEEDLE,
    PASSAGE,
    VANILLA,
    steered,
)
from windeye.papers.context_awareness.plan import ALPHAS
from windeye.papers.context_awareness.tuning import ARMS, SPANS
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def reading(rows: Sequence[Row]) -> Picture:
    """What every arm reads and remembers."""
    values = {(row.arm, row.metric): row for row in rows}
    figure, axes = canvas(7.4, 3.2)
    arms = (BEFORE, *ARMS)
    for number, metric in enumerate((PASSAGE, MARKED, MEMORY)):
        places = [place + 0.26 * (number - 1) for place in range(len(arms))]
        found = [values[arm, metric] for arm in arms]
        axes.bar(places, [100 * row.mean for row in found], width=0.24, color=COLOURS[number], label=metric)
        for place, row in zip(places, found, strict=True):
            axes.plot([place] * row.n, [100 * value for value in row.values], ".", color="#30363c", markersize=4)
    axes.set_xticks(range(len(arms)), [arm.replace(" by", "\nby").replace(" at", "\nat") for arm in arms], fontsize=8)
    axes.set_ylabel("symbols, %")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncol=3)
    caption = "Share of symbols of greedy answers that are right, on dialogues that no training saw. Dots are seeds."
    return as_svg(figure, "What is read and what is remembered", caption)


def steering(rows: Sequence[Row]) -> Picture:
    """What vanilla tuning left, against the strength of steering."""
    values = {(row.arm, row.metric): row for row in rows}
    figure, axes = canvas(6.4, 3.4)
    for number, span in enumerate(SPANS):
        for metric, style in ((PASSAGE, "-"), (MEMORY, ":")):
            found = [values[VANILLA, metric], *(values[steered(VANILLA, span, alpha), metric] for alpha in ALPHAS)]
            axes.plot(
                range(len(found)), [100 * row.mean for row in found], style, marker="o", markersize=3,
                color=COLOURS[number], label=f"to {span}" if style == "-" else None,
            )  # fmt: skip
    axes.set_xticks(range(1 + len(ALPHAS)), ["1", *(f"{alpha:g}" for alpha in ALPHAS)])
    axes.set_xlabel("weights of other keys are multiplied by")
    axes.set_ylabel("symbols, %")
    axes.legend(frameon=False, fontsize=8)
    caption = (
        "The vanilla arm. Lines: symbols of the passage; dotted: memorised answers where it is about somebody else."
    )
    return as_svg(figure, "Steering to what the user wrote", caption)


def needles(rows: Sequence[Row]) -> Picture:
    """What the real model found, by arm."""
    found = [row for row in rows if row.metric == NEEDLE]
    figure, axes = canvas(6.4, 0.8 + 0.34 * len(found))
    axes.barh(range(len(found)), [100 * row.mean for row in found], color=COLOURS[0], height=0.6)
    axes.set_yticks(range(len(found)), [row.arm for row in found], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("keywords, %")
    return as_svg(figure, "A needle and a real model", "Mean recall of the keywords over lengths and depths.")
