"""Effects of heads, as maps over layers and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windeye.papers.circuit_reuse.real import Reading
from windeye.papers.circuit_reuse.toy import Outcome, Table
from windeye.report import Picture
from windeye.report.figures import as_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def circuit(found: Sequence[Outcome]) -> Picture:
    """Senders into the keys of the answering heads, with MLPs free and frozen, a column per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * len(found) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(2, len(found), squeeze=False)
    for column, outcome in enumerate(found):
        for row, key in enumerate(("keys_free", "keys_frozen")):
            _map(panels[row, column], outcome["circuit"][key], 1.0)  # type: ignore[literal-required]
        panels[0, column].set_title(f"seed {column}", fontsize=9)
    for row, label in enumerate(("MLPs free", "MLPs frozen")):
        panels[row, 0].set_ylabel(f"{label}\nlayer")
    caption = "Effect of each head on the keys of the heads that carry the answer. Red is a flip of the answer."
    return as_svg(figure, "Who tells the answering heads where to look", caption)


def reuse(found: Reading) -> Picture:
    """Effects on the logits in both tasks, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, task) in zip(
        panels, (("IOI", found["ioi"]), ("Colored Objects", found["colored_objects"])), strict=True
    ):
        largest = max(abs(e) for row in task["logits"] for e in row)
        _map(axes, task["logits"], largest)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("head")
    panels[0].set_ylabel("layer")
    caption = "Effect of each head of SmolLM2-135M on the logits, MLPs free; each map has its own scale."
    return as_svg(figure, "The heads of two tasks", caption)


def _map(axes: Axes, table: Table, largest: float) -> None:
    axes.imshow(table, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    axes.tick_params(labelsize=7)
