"""Figures of the report."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.efficient_probing.judgement import ACCURACY, COVERAGE, COVERED, NAMES, PARAMETERS, STAGES
from windeye.papers.efficient_probing.plan import NEAREST, POOLS, QUERIES, ep
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_svg, canvas


def trade_off(rows: Sequence[Row]) -> Picture:
    """Accuracy over trained parameters."""
    figure, axes = canvas(7.4, 3.8)
    found = {(row.arm, row.metric): row for row in rows}
    for place, arm in enumerate((*POOLS, NEAREST)):
        accuracy, size = found[arm, ACCURACY], found[arm, PARAMETERS].mean
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([size] * accuracy.n, accuracy.values, ".", color=colour, markersize=4)
        axes.plot(size, accuracy.mean, "o" if arm.startswith("EP") else "s", color=colour, label=arm)
    axes.set_xlabel("trained parameters, with the classifier")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=7)
    caption = "Digits of held-out scenes, read from a frozen masked autoencoder. Circles are efficient probing."
    return as_svg(figure, "What a probe reads for its size", caption)


def seeking(rows: Sequence[Row]) -> Picture:
    """Share of attention on the digit."""
    figure, axes = canvas(5.6, 3.0)
    found = {(row.arm, row.metric): row for row in rows}
    for place, queries in enumerate(QUERIES):
        values = found[ep(queries), COVERAGE].values
        axes.plot([place] * len(values), [100 * v for v in values], "o", color=COLOURS[0], markersize=4)
    area = found[ep(QUERIES[0]), COVERED].mean
    axes.axhline(100 * area, color=COLOURS[1], linestyle="--", label="patches that it covers")
    axes.set_xticks(range(len(QUERIES)), [str(queries) for queries in QUERIES])
    axes.set_xlabel("queries")
    axes.set_ylabel("attention on the digit, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "Where the queries look", "Dots are seeds.")


def courses(rows: Sequence[Row]) -> Picture:
    """The losses of both trainings of encoders."""
    figure, axes = canvas(5.6, 3.0)
    for colour, name in zip(COLOURS, NAMES.values(), strict=False):
        stages = {row.metric: row for row in rows if row.arm == name}
        means = [stages[STAGES.format(n)].mean for n in range(1, 11) if STAGES.format(n) in stages]
        axes.plot(range(1, len(means) + 1), means, "-o", color=colour, label=name, markersize=4)
    axes.set_xlabel("tenth of the training")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=7)
    caption = (
        "The masked encoder's: squared error of hidden pixels, whose variance is about 0.7. The labelled encoder's: "
        "cross-entropy in nats."
    )
    return as_svg(figure, "Training the encoders", caption)
