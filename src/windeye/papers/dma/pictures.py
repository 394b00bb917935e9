"""How much is recalled, from how far, and what is held."""

from __future__ import annotations

import math

from windeye.papers.dma.arms import ARMS, DMA
from windeye.papers.dma.judgement import ACCURACY, Outcomes, distance
from windeye.papers.dma.plan import Plan
from windeye.papers.dma.training import BINS
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def recall(rows: tuple[Row, ...]) -> Picture:
    """Accuracy of every arm, seed by seed."""
    figure, axes = canvas(6.4, 3.2)
    values = {row.arm: row for row in rows if row.metric == ACCURACY}
    for place, arm in enumerate(ARMS):
        row = values[arm.name]
        points = [100 * value for value in row.values]
        axes.plot(points, [place] * row.n, "o", color=COLOURS[place], alpha=0.45, markersize=5)
        axes.plot([100 * row.mean], [place], "|", color=COLOURS[place], markersize=22, markeredgewidth=2.5)
        axes.annotate(
            f"{100 * row.mean:.1f}", (100 * row.mean, place), (0, 13), textcoords="offset points", ha="center"
        )
    axes.set_yticks(range(len(ARMS)), [arm.name for arm in ARMS])
    axes.set_ylim(len(ARMS) - 0.5, -0.7)
    axes.set_xlim(-3, 105)
    axes.set_xlabel("values recalled, %")
    return as_svg(figure, "Recall", "Dots are seeds, bars their mean. All but full attention see equally many keys.")


def distances(rows: tuple[Row, ...], plan: Plan) -> Picture:
    """Accuracy over the distance between a query and its value."""
    figure, axes = canvas(6.4, 3.4)
    values = {(row.arm, row.metric): row for row in rows}
    length = plan.recall.task.length
    for colour, arm in zip(COLOURS, ARMS, strict=False):
        found = [(place, values.get((arm.name, distance(place, length)))) for place in range(BINS)]
        points = [((place + 0.5) * length / BINS, 100 * row.mean) for place, row in found if row is not None]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=arm.name)
    axes.axvline(plan.keep, color="#66727d", linewidth=0.8, linestyle=":")
    axes.set_ylim(-3, 105)
    axes.set_xlabel("tokens between value and query")
    axes.set_ylabel("values recalled, %")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = f"Means over seeds. The dotted line is where a window of {plan.keep} ends."
    return as_svg(figure, "From how far", caption)


def held(outcomes: Outcomes, seeds: tuple[int, ...], plan: Plan) -> Picture:
    """Which tokens are in the cache at the last query."""
    figure, axes = canvas(6.4, 2.8)
    mine = [outcomes[DMA, seed] for seed in seeds]
    found = [outcome["kept"] or [] for outcome in mine]
    means = [100 * math.fsum(shares) / len(shares) for shares in zip(*found, strict=True)]
    pairs = 2 * plan.recall.task.pairs
    for label, colour, places in (
        ("keys", COLOURS[2], range(0, pairs, 2)),
        ("values", COLOURS[0], range(1, pairs, 2)),
        ("queries and fillers", COLOURS[6], range(pairs, len(means))),
    ):
        axes.bar(places, [means[place] for place in places], width=1.0, color=colour, label=label)
    chance = 100 * math.fsum(outcome["chance"] for outcome in mine) / len(mine)
    axes.axhline(chance, color=COLOURS[1], linewidth=1.0, linestyle="--", label="chance")
    axes.set_xlabel("place in the sequence")
    axes.set_ylabel("held, % of sequences")
    axes.legend(frameon=False, fontsize=8)
    caption = (
        f"Share of held-out sequences whose cache of {plan.keep} tokens holds this one when the last query comes; "
        "means over seeds. Late places come after the last query of many sequences."
    )
    return as_svg(figure, "What is held", caption)
