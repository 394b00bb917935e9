"""Curves over tens of thousands of points that stay usable: drawn on a canvas, zoomed and read with the pointer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

import numpy as np
from jaxtyping import Float

from windeye.report.figures import COLOURS

STYLE = """
figure.curves canvas { width: 100%; cursor: crosshair; touch-action: none }
figure.curves .readout, figure.curves .context { font-size: .88rem; min-height: 1.4em; white-space: pre-wrap }
figure.curves .context { color: #66727d } figure.curves mark { background: #ffe08a }
"""


def curves(
    title: str,
    caption: str,
    series: Mapping[str, Float[np.ndarray, " points"]],
    labels: Sequence[str] | None = None,
) -> str:
    """One panel a series over a shared axis of points, with the label under the pointer; `script` makes it move.

    Raises:
        ValueError: there are no points, or sizes differ.

    Example:
        >>> html = curves("Entropy", "nats", {"entropy": np.array([0.5, 1.0])}, ["wind", " eye"])
        >>> '"labels": ["wind", " eye"]' in html
        True
    """
    sizes = {name: len(values) for name, values in series.items()}
    expected = len(labels) if labels is not None else next(iter(sizes.values()), 0)
    if not expected or set(sizes.values()) != {expected}:
        raise ValueError(f"series and labels must be of one size above 0, got {sizes} and labels {expected}")
    told = {
        "series": [{"name": name, "data": _float32(values)} for name, values in series.items()],
        "colours": COLOURS,
        "labels": None if labels is None else list(labels),
    }
    # "<" would let a label end the script that holds it.
    data = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<figure class="curves"><canvas tabindex="0" role="img" aria-label="{escape(title)}"></canvas>'
        f'<div class="readout"></div><div class="context"></div>'
        f'<script type="application/json">{data}</script>'
        f"<figcaption><b>{escape(title)}.</b> {escape(caption)} The wheel zooms, dragging moves, a double click shows "
        f"all; + and - and the arrows do so from the keyboard.</figcaption></figure>"
    )


def script() -> str:
    """What a page with `curves` needs once, after them."""
    source = resources.files("windeye.report").joinpath("curves.js").read_text()
    return f"<style>{STYLE}</style><script>{source}</script>"


def _float32(values: Float[np.ndarray, " points"]) -> str:
    finite = np.nan_to_num(np.asarray(values, "<f4"))
    return base64.b64encode(finite.tobytes()).decode()
