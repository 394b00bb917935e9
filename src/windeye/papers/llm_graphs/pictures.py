"""Accuracy by horizon, what broken structure costs, and whom children look at."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.data.graphs import PERTURBATIONS
from windeye.papers.llm_graphs.judgement import ACCURACY, BEFORE, PREFERENCE, drop, of
from windeye.papers.llm_graphs.plan import ARMS, DIGITS, FULL, HORIZONS, SYNTAX, arm
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def grid(rows: Sequence[Row]) -> Picture:
    """Accuracy over the horizon of reading, a line per horizon of training."""
    figure, axes = canvas(6.4, 3.6)
    values = {(row.arm, row.metric): row for row in rows}
    for colour, trained in zip(COLOURS, ARMS[SYNTAX], strict=False):
        points = [100 * values[of(SYNTAX, trained), f"accuracy read with {arm(k)}"].mean for k in HORIZONS]
        axes.plot(HORIZONS, points, marker="o", markersize=4, color=colour, label=arm(trained))
    axes.set_xticks(HORIZONS, [arm(k) for k in HORIZONS])
    axes.set_xlabel("horizon of reading")
    axes.set_ylabel(f"{ACCURACY} on {SYNTAX}, %")
    axes.legend(title="trained with", frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return as_svg(figure, "Horizons of training and of reading", "Means over seeds.")


def losses(rows: Sequence[Row]) -> Picture:
    """Points lost by each perturbation on both graphs."""
    figure, axes = canvas(6.4, 3.2)
    values = {(row.arm, row.metric): row for row in rows}
    for shift, (graph, colour) in enumerate(zip((SYNTAX, DIGITS), COLOURS, strict=False)):
        for place, name in enumerate(PERTURBATIONS):
            row = values[of(graph, FULL), drop(name)]
            at = place + 0.36 * (shift - 0.5)
            axes.bar(at, row.mean, 0.34, color=colour, alpha=0.75, label=None if place else graph)
            axes.plot([at] * row.n, row.values, ".", color="#333333", markersize=5)
    axes.set_xticks(range(len(PERTURBATIONS)), list(PERTURBATIONS))
    axes.set_xlabel("perturbation")
    axes.set_ylabel("points lost")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, "What broken structure costs", "Full attention. Bars are means over seeds, dots seeds.")


def preferences(rows: Sequence[Row]) -> Picture:
    """Own parent over other parents, before and after training."""
    figure, axes = canvas(6.4, 3.2)
    values = {(row.arm, row.metric): row for row in rows}
    for place, trained in enumerate(ARMS[SYNTAX]):
        for metric, colour, label in (
            (BEFORE, COLOURS[6], "before"), (PREFERENCE, COLOURS[0], "after training")
        ):  # fmt: skip
            row = values[of(SYNTAX, trained), metric]
            axes.plot(row.values, [place] * row.n, "o", color=colour, alpha=0.6, label=None if place else label)
    axes.axvline(1.0, color="#66727d", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(ARMS[SYNTAX])), [arm(k) for k in ARMS[SYNTAX]])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(PREFERENCE)
    axes.legend(frameon=False, fontsize=8)
    caption = "Attention of the same children, all read without a mask. Dots are seeds; at 1 edges do not matter."
    return as_svg(figure, "Whom children look at", caption)
