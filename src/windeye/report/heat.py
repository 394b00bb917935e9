"""Heat maps: small tables of numbers as SVG whose cells tell their value, wide ones as pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float

from windeye.report.evidence import Picture

LIGHT, DARK = (242, 245, 247), (23, 63, 95)


def heat_map(
    title: str,
    caption: str,
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    least: float | None = None,
    most: float | None = None,
    notes: Sequence[Sequence[str]] | None = None,
) -> Picture:
    """A table as coloured cells, light for small and dark for large; the pointer on a cell tells its value.

    Args:
        rows, columns: names along the axes.
        least, most: values of the lightest and the darkest colour, default those of the table.
        notes: a word per cell that is told with its value.

    Raises:
        ValueError: names and values are of different sizes.

    Example:
        >>> heat_map("t", "c", np.eye(2), rows=["L0", "L1"], columns=["H0", "H1"]).content.count("<rect")
        4
    """
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values must be [rows {len(rows)}, columns {len(columns)}], got shape {values.shape}")
    low = float(np.nanmin(values)) if least is None else least
    high = float(np.nanmax(values)) if most is None else most
    cell, left, top = 18, 40, 18
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + cell * len(columns)} {top + cell * len(rows)}" '
        f'font-family="system-ui, sans-serif" font-size="9" fill="#66727d">'
    ]
    parts += [
        f'<text x="{left + cell * (j + 0.5):g}" y="{top - 6}" text-anchor="middle">{escape(name)}</text>'
        for j, name in enumerate(columns)
    ]
    for i, name in enumerate(rows):
        parts.append(f'<text x="{left - 5}" y="{top + cell * (i + 0.65):g}" text-anchor="end">{escape(name)}</text>')
        for j, column in enumerate(columns):
            value = float(values[i, j])
            note = f" {notes[i][j]}" if notes is not None and notes[i][j] else ""
            told = escape(f"{name}{column}: {value:.4g}{note}")
            parts.append(
                f'<rect x="{left + cell * j}" y="{top + cell * i}" width="{cell - 1}" height="{cell - 1}" '
                f'fill="{_colour(value, low, high)}"><title>{told}</title></rect>'
            )
    return Picture(title, f"{caption} Light {low:.3g}, dark {high:.3g}.", "".join(parts) + "</svg>")


def pixels(title: str, caption: str, values: Float[np.ndarray, "rows columns"], *, columns: int = 1024) -> Picture:
    """A wide table as an image of one pixel a value, the wide axis averaged in ``columns`` bins.

    Example:
        >>> pixels("t", "c", np.random.rand(4, 9000)).content[:22]
        'data:image/png;base64,'
    """
    from matplotlib.image import imsave

    if values.shape[1] > columns:
        edges = np.linspace(0, values.shape[1], columns + 1).astype(int)
        sums = np.add.reduceat(values.astype(np.float64), edges[:-1], axis=1)
        values = sums / np.diff(edges)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    share = np.nan_to_num((values - low) / ((high - low) or 1.0))[..., None]
    colour = np.array(LIGHT) + share * (np.array(DARK) - np.array(LIGHT))
    buffer = io.BytesIO()
    imsave(buffer, colour.round().astype(np.uint8), format="png")
    content = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, f"{caption} Light {low:.3g}, dark {high:.3g}.", content)


def _colour(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "#ffffff"
    share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(LIGHT, DARK, strict=True))
