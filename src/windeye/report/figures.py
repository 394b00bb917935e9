"""Figures without global state, as SVG text or PNG data that a page can hold."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from windeye.report.evidence import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2b5c8a", "#e4572e", "#76a21e", "#8d5a97", "#c9a227", "#4aa3a2", "#8a8a8a")


def canvas(width: float = 6.4, height: float = 3.6) -> tuple[Figure, Axes]:
    """One empty plot with the house's look."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_prop_cycle(color=COLOURS)
    return figure, axes


def as_svg(figure: Figure, title: str, caption: str) -> Picture:
    """Lines and points: small, sharp, searchable."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "windeye"}):  # the same figure is the same text
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Picture(title, caption, text[text.index("<svg") :])


def as_png(figure: Figure, title: str, caption: str, dpi: int = 110) -> Picture:
    """Photographs."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return Picture(title, caption, "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
