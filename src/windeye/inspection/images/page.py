"""A look as files: figures, numbers, and one page that asks for nothing outside itself."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from pathlib import Path

from windeye.inspection.images.figures import pictures
from windeye.inspection.images.layers import named
from windeye.inspection.images.look import Look
from windeye.inspection.images.models import RANDOM
from windeye.inspection.images.viewer import viewer
from windeye.report import html
from windeye.report.evidence import Picture
from windeye.report.writing import write_whole

_STYLE = """<style>
.loud { background: #c0392b; color: #fff; padding: .5rem .9rem; border-radius: 4px }
td:last-child, th:last-child { text-align: left }
</style>"""


def save(seen: Look, folder: Path, command: str = "") -> Path:
    """Write `look.html`, `look.json` and a file a figure into ``folder``; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    found = pictures(seen)
    for earlier in folder.glob("*.[ps][nv]g"):  # of another layer, perhaps
        if re.fullmatch(r"query|rectangles|routes|outputs|spectra|layers|heads(-\d+)?", earlier.stem):
            earlier.unlink()
    for name, picture in found.items():
        _write_picture(folder / name, picture)
    write_whole(folder / "look.json", (json.dumps(seen.as_plain()) + "\n").encode())
    page = folder / "look.html"
    write_whole(page, report(seen, found, command).encode())
    return page


def report(seen: Look, found: dict[str, Picture], command: str) -> str:
    """The page."""
    height, width = seen.photo.size
    asked = ", ".join(map(named, seen.queries))
    told = (
        f"{seen.photo.name}, {height} x {width} pixels, seen at {seen.seen[0]} x {seen.seen[1]}; "
        f"{'queries' if len(seen.queries) > 1 else 'query'} at {asked} (row, column). Weights of the model: "
        f"{seen.weights}. {seen.seconds:.1f} s."
    )
    parts = [_STYLE, html.paragraph(told)]
    if seen.weights == RANDOM:
        parts.append(f'<p class="loud">{escape(LOUD)}</p>')
    parts.append(viewer(seen))
    parts += [html.picture(picture) for picture in found.values()]
    parts += [html.heading("Layers"), html.table(*by_layer(seen))]
    if command:
        parts += [html.heading("Again"), f"<pre>{escape(command)}</pre>"]
    return html.page(f"{seen.model} looks at {seen.photo.name}", parts)


LOUD = (
    "The weights of this model are random: what is shown is where its architecture can look, not what a trained model "
    "looks at. Official weights are given with --weights PATH."
)


def by_layer(seen: Look) -> tuple[list[str], list[list[str]]]:
    """A row per layer: its map, and how the first query spreads its weight, mean over heads."""
    rows = []
    for layer in seen.layers:
        weights = layer.maps[0]
        mean = weights.mean(axis=0)
        tall, wide = layer.place.grid
        y, x = divmod(int(mean.argmax()), wide)
        left, top, right, bottom = layer.place.box((y, x))
        effective = float((weights.sum(axis=(1, 2)) ** 2 / (weights**2).sum(axis=(1, 2)).clip(min=1e-30)).mean())
        rows.append(
            [
                str(layer.layer),
                f"{tall} x {wide}",
                str(len(weights)),
                f"{int(layer.visible(0).sum()):,}",
                f"{effective:.1f}",
                _share(layer.elsewhere[0].mean()),
                _share(0.0 if layer.beside is None else layer.beside[0].mean()),
                f"{mean.max():.3f} at {(top + bottom) / 2:.0f},{(left + right) / 2:.0f}",
                layer.mixer,
            ]
        )
    columns = [
        "layer", "tokens", "heads", "tokens seen", "effective", "off the map", "class", "heaviest, at pixel", "mixer"
    ]  # fmt: skip
    told = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return [columns[place] for place in told], [[row[place] for place in told] for row in rows]


def _share(value: float) -> str:
    return f"{value:.1%}" if value > 5e-4 else ""


def _write_picture(path: Path, picture: Picture) -> None:
    if picture.content.startswith("<svg"):
        write_whole(path.with_suffix(".svg"), picture.content.encode())
    else:
        write_whole(path.with_suffix(".png"), base64.b64decode(picture.content.split(",", 1)[1]))
