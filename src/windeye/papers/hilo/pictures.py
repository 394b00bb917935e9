"""Figures of the report."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.hilo.judgement import ACCURACY, KINDS, SPEED, layers, share_of
from windeye.papers.hilo.plan import ARMS, FULL, SPLIT, hilo
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def trade_off(rows: Sequence[Row]) -> Picture:
    """Accuracy over speed."""
    figure, axes = canvas(7.4, 3.8)
    found = {(row.arm, row.metric): row for row in rows}
    for place, arm in enumerate(ARMS):
        accuracy, speed = found[arm, ACCURACY], found[arm, SPEED]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([speed.mean] * accuracy.n, [100 * v for v in accuracy.values], ".", color=colour, markersize=4)
        axes.plot(speed.mean, 100 * accuracy.mean, "o" if arm.startswith("HiLo") else "s", color=colour, label=arm)
    axes.set_xlabel(SPEED)
    axes.set_ylabel(f"{ACCURACY}, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "Accuracy at what speed", "Circles are HiLo, squares the others; small dots are seeds.")


def spectra(rows: Sequence[Row]) -> Picture:
    """Fine detail in the outputs of both kinds of heads, layer by layer."""
    figure, axes = canvas(7.4, 3.4)
    found = {(row.arm, row.metric): row for row in rows}
    for place, arm in enumerate((*(hilo(alpha) for alpha in SPLIT), FULL)):
        for kind, style in zip(KINDS, ("-o", "--o"), strict=True):
            values = [found[arm, share_of(layer, kind)].mean for layer in layers(rows, arm)]
            axes.plot(values, style, color=COLOURS[place], label=f"{arm}, {kind}", markersize=4)
    axes.set_xlabel("layer")
    axes.set_ylabel("energy above half of Nyquist")
    axes.legend(frameon=False, fontsize=7)
    caption = "Outputs of the heads before projection, on a photograph; full attention is split in halves as a control."
    return as_svg(figure, "Which heads carry fine detail", caption)
