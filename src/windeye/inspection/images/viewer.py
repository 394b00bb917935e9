"""All layers, heads and queries of a look on a page, to choose from with the pointer."""

from __future__ import annotations

import base64
import io
import json
from importlib import resources
from typing import Any

import numpy as np

from windeye.inspection.images.layers import LayerLook, named
from windeye.inspection.images.look import Look
from windeye.inspection.images.overlay import palette, thumbnail

STYLE = """
figure.viewer { display: grid; grid-template-columns: minmax(0, 3fr) minmax(14rem, 2fr); gap: .8rem 1.2rem }
figure.viewer canvas { width: 100%; background: #222; cursor: crosshair }
figure.viewer figcaption { grid-column: 1 / 3 }
figure.viewer .readout { font-size: .88rem; min-height: 4.2em; white-space: pre-wrap }
figure.viewer .controls div { display: flex; flex-wrap: wrap; gap: .2rem; margin: 0 0 .45rem }
figure.viewer .controls span { width: 4.2rem; color: #66727d; font-size: .85rem }
figure.viewer button { font: inherit; font-size: .82rem; border: 1px solid #cfd6dc; border-radius: 3px;
       padding: 0 .4rem; background: #f2f5f7; color: inherit; cursor: pointer }
figure.viewer button[aria-pressed=true] { background: #2b5c8a; border-color: #2b5c8a; color: #fff }
@media (max-width: 44rem) { figure.viewer { display: block } }
"""
LEVELS = 65535


def viewer(seen: Look) -> str:
    """The photograph with every weight that the look holds; needs no more than this fragment.

    Example:
        >>> from windeye.inspection import look
        >>> from windeye.models.vision import swin
        >>> html = viewer(look(swin(16, (1, 1), (2, 2), window=4), "astronaut", size=64))
        >>> html.count("<figure"), "http" in html
        (1, False)
    """
    height, width = seen.photo.size
    told = {
        "photo": _jpeg(thumbnail(seen.photo)),
        "size": [height, width],
        "colours": base64.b64encode(palette().tobytes()).decode(),
        "chosen": seen.layers.index(seen.here),
        "queries": [
            {"name": named(q), "at": None if q == "class" else [(q[0] + 0.5) / height, (q[1] + 0.5) / width]}
            for q in seen.queries
        ],
        "layers": [_layer(layer, height, width) for layer in seen.layers],
    }
    data = json.dumps(told).replace("<", "\\u003c")
    script = resources.files("windeye.inspection.images").joinpath("viewer.js").read_text()
    return (
        f'<style>{STYLE}</style><figure class="viewer"><canvas tabindex="0" role="img" '
        f'aria-label="Weights over the photograph"></canvas><div><div class="controls"></div>'
        f'<div class="readout"></div></div><script type="application/json">{data}</script><figcaption><b>Every layer '
        "and head.</b> As bright as the heaviest token; white borders are around the tokens that get weight. The "
        "pointer tells a token's weight, the arrow keys go through the layers.</figcaption></figure>"
        f"<script>{script}</script>"
    )


def _layer(layer: LayerLook, height: int, width: int) -> dict[str, Any]:
    maps = np.stack([layer.clean(query) for query in range(len(layer.maps))])
    most = maps.max(axis=(2, 3))
    codes = np.ceil(maps / np.maximum(most, 1e-300)[..., None, None] * LEVELS - 1e-6).astype("<u2")
    told = {
        "name": str(layer.layer),
        "stage": layer.layer.stage,
        "mixer": layer.mixer,
        "kinds": list(layer.heads),
        "rows": [round(at / height, 6) for at in layer.place.rows],
        "columns": [round(at / width, 6) for at in layer.place.columns],
        "most": [[float(f"{value:.6g}") for value in row] for row in most],
        "data": base64.b64encode(codes.tobytes()).decode(),
    }
    if layer.rectangles is not None:
        told["boxes"] = (layer.rectangles / [width, height, width, height]).round(5).tolist()
    return told


def _jpeg(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8)).save(buffer, "jpeg", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
