"""Figures of the report."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from windeye.papers.maformer.judgement import JOINT, LARGE, SMALL
from windeye.papers.maformer.plan import ARMS, RATIOS, ablation
from windeye.papers.maformer.scenes import scenes
from windeye.papers.paired import values
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_png, as_svg, canvas

SHOWN = 6


def by_arm(rows: Sequence[Row]) -> Picture:
    """Scenes that arms name rightly."""
    figure, axes = canvas(7.0, 3.4)
    for shift, (colour, metric) in enumerate(zip(COLOURS, (JOINT, LARGE, SMALL), strict=False)):
        for place, arm in enumerate(ARMS):
            found = values(rows, arm, metric)
            at = place + 0.2 * (shift - 1)
            axes.plot([at] * len(found), found, "o", color=colour, alpha=0.5, markersize=4)
            mean = sum(found) / len(found)
            axes.plot([at], [mean], "_", color=colour, markersize=12, label=metric if place == 0 else None)
    axes.set_xticks(range(len(ARMS)), ARMS)
    axes.set_ylabel("held-out scenes, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "Large and small digits", "Dots are seeds, bars their means; all networks have one size.")


def by_ratio(rows: Sequence[Row]) -> Picture:
    """Fusion by attention with fewer and more global tokens."""
    figure, axes = canvas(5.0, 3.0)
    for colour, metric in zip(COLOURS, (JOINT, LARGE, SMALL), strict=False):
        found = [values(rows, ablation(ratio), metric) for ratio in RATIOS]
        axes.plot(RATIOS, [sum(v) / len(v) for v in found], "-", color=colour, label=metric)
        for ratio, seeds in zip(RATIOS, found, strict=True):
            axes.plot([ratio] * len(seeds), seeds, "o", color=colour, alpha=0.5, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
    axes.set_xlabel("global tokens per token")
    axes.set_ylabel("held-out scenes, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "How many global tokens", "Sizes of these networks differ: the sums over positions grow.")


def examples() -> Picture:
    """Scenes of training."""
    figure, axes = canvas(7.0, 1.5)
    images, labels = scenes(SHOWN, torch.Generator().manual_seed(0))
    axes.imshow(torch.cat(images[:, 0].unbind(), dim=1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    told = ", ".join(f"{large} of {small}s" for large, small in labels.tolist())
    return as_png(figure, "Scenes", f"From left to right: {told}.")
