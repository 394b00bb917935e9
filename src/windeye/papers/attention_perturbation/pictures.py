"""Accuracy under attack, over the radius of training, and agreement with gradients."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.attention_perturbation.evaluation import ACCURACY, AGREEMENTS, RADII, attacked
from windeye.papers.attention_perturbation.judgement import SWEPT, named
from windeye.papers.attention_perturbation.plan import FEW, SWEEP, VANILLA, Plan, at, word_at
from windeye.report import Picture, Row
from windeye.report.figures import as_svg, canvas

Values = dict[tuple[str, str], Row]


def pictures(rows: Sequence[Row], plan: Plan) -> tuple[Picture, ...]:
    """All pictures of a run."""
    values = {(row.arm, row.metric): row for row in rows}
    drawn = [under_attack(values, task) for task in plan.tasks]
    if SWEPT in plan.tasks:
        drawn.append(over_radii(values))
    return (*drawn, *(agreements(values, task, plan.tasks[task].arms) for task in plan.tasks))


def under_attack(values: Values, task: str) -> Picture:
    """How accuracy falls with the radius of the attack."""
    figure, axes = canvas(6.4, 3.6)
    for arm in FEW:
        row = [values[named(task, arm), metric] for metric in (ACCURACY, *map(attacked, RADII))]
        axes.errorbar(
            [0, *RADII], [100 * r.mean for r in row], [100 * r.spread for r in row], label=arm, capsize=2, marker="o"
        )
    axes.set_xlabel("radius of the attack on the scores, one step")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, f"Accuracy under attack: {task}", "Means over seeds; bars are one standard deviation.")


def over_radii(values: Values) -> Picture:
    """How accuracy depends on the radius of training."""
    figure, axes = canvas(6.4, 3.4)
    for label, name in (("Attention AT", at), ("Word AT", word_at)):
        row = [values[named(SWEPT, name(radius)), ACCURACY] for radius in SWEEP]
        axes.errorbar(
            SWEEP, [100 * r.mean for r in row], [100 * r.spread for r in row], label=label, capsize=2, marker="o"
        )
    axes.axhline(100 * values[named(SWEPT, VANILLA), ACCURACY].mean, color="#66727d", linewidth=0.8, label=VANILLA)
    axes.set_xscale("log")
    axes.set_xticks(SWEEP, [f"{radius:g}" for radius in SWEEP])
    axes.set_xlabel("radius in training")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, f"Accuracy over the radius of training: {SWEPT}", "Bars are one standard deviation.")


def agreements(values: Values, task: str, arms: Sequence[str]) -> Picture:
    """Correlation of attention with two kinds of importance, per arm."""
    shown = list(AGREEMENTS)[:2]
    figure, axes = canvas(6.4, 1.0 + 0.28 * len(arms))
    for place, metric in enumerate(shown):
        means = [values[named(task, arm), metric].mean for arm in arms]
        axes.barh([y + 0.4 * place for y in range(len(arms))], means, height=0.38, label=metric)
    axes.set_yticks([y + 0.2 for y in range(len(arms))], list(arms), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau of attention and importance")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, f"Attention and gradients: {task}", "Reported; decides nothing.")
