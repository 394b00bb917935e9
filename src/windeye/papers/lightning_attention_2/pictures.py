"""Tokens per second over the length, and the two loss curves on top of each other."""

from __future__ import annotations

from windeye.papers.lightning_attention_2.judgement import SPEED
from windeye.papers.lightning_attention_2.speed import FORMS
from windeye.papers.lightning_attention_2.training import BLOCKS, PAIRS, Curve
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def speeds(rows: tuple[Row, ...]) -> Picture:
    """Both axes logarithmic: a constant speed is a level line."""
    figure, axes = canvas(6.4, 3.4)
    for form, colour in zip(FORMS, COLOURS, strict=False):
        mine = {int(r.metric.split("n=")[1]): r for r in rows if r.arm == form and r.metric.startswith(SPEED)}
        axes.plot(list(mine), [row.mean for row in mine.values()], "o-", color=colour, label=form, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens")
    axes.set_ylabel("tokens per second")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, "Forward and backward", "One thread, float32, 4 heads of 64; means over repetitions.")


def curves(trained: dict[str, list[Curve]], seed: int) -> Picture:
    """Losses of the first seed in both forms, and their difference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    blocks, pairs = (trained[arm][0]["losses"] for arm in (BLOCKS, PAIRS))
    upper.plot(pairs, color=COLOURS[1], linewidth=3, alpha=0.5, label=PAIRS)
    upper.plot(blocks, color=COLOURS[0], linewidth=1, label=BLOCKS)
    upper.set_ylabel("loss, nats")
    upper.legend(frameon=False)
    lower.plot([abs(a - b) for a, b in zip(blocks, pairs, strict=True)], color=COLOURS[2], linewidth=1)
    lower.set_yscale("log")
    lower.set_ylabel("difference")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure, "The same result", f"Two trainings of one model from the same weights, seed {seed}.")
