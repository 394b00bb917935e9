"""How well the arms model text, and how fast they train at each length."""

from __future__ import annotations

from windeye.papers.lightning_attention.arms import ARMS, TNL, TRANSFORMER
from windeye.papers.lightning_attention.judgement import BITS, at
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def scores(rows: tuple[Row, ...]) -> Picture:
    """Bits per byte of every arm, seeds as dots."""
    figure, axes = canvas(6.4, 3.8)
    values = {row.arm: row for row in rows if row.metric == BITS}
    for place, arm in enumerate(ARMS):
        colour = COLOURS[1] if arm == TNL else COLOURS[2] if arm == TRANSFORMER else COLOURS[0]
        axes.plot(values[arm].values, [place] * values[arm].n, "o", color=colour, alpha=0.45, markersize=5)
        axes.plot([values[arm].mean], [place], "|", color=colour, markersize=18, markeredgewidth=2.5)
        axes.annotate(f"{values[arm].mean:.3f}", (values[arm].mean, place), (0, 10), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(ARMS)), ARMS)
    axes.set_ylim(len(ARMS) - 0.5, -0.8)
    axes.set_xlabel("held-out bits per byte")
    caption = "Dots are seeds, bars their mean; a diverged run counts as 8 bits."
    return as_svg(figure, "What each part is worth", caption)


def speeds(rows: tuple[Row, ...]) -> Picture:
    """Training speed over the length, both axes logarithmic."""
    figure, axes = canvas(6.4, 3.2)
    for arm, colour in ((TNL, COLOURS[1]), (TRANSFORMER, COLOURS[2])):
        mine = {int(row.metric.split("n=")[1]): row for row in rows if row.arm == arm and row.metric.startswith(at(""))}
        axes.plot(list(mine), [row.mean for row in mine.values()], "o-", color=colour, label=arm, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens in a sequence")
    axes.set_ylabel("bytes per second")
    axes.legend(frameon=False)
    caption = "Forward and backward passes over as many bytes at every length, one thread; means over repetitions."
    return as_svg(figure, "Training speed", caption)
