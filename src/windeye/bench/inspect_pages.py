"""The page on inspection shows what `benchmarks/` holds: `make tables` writes it, a test keeps it so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from windeye.bench import inspect
from windeye.bench.table import between, grid
from windeye.report import Picture
from windeye.report.figures import COLOURS, as_svg, canvas
from windeye.sites.heads import KINDS

IMAGES = Path("docs") / "images"
CURVES = {"entropy": "entropy, nats", "waad": "WAAD, tokens", "received": "weight received"}


def committed(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last inspection of a real model and the last run of the suite that were committed in a checkout."""
    names = ("inspection-smollm2", "inspect-cpu")
    first, second = (json.loads((root / "benchmarks" / f"{name}.json").read_text()) for name in names)
    return first, second


def inspection(text: str, seen: dict[str, Any], suite: dict[str, Any]) -> str:
    """The page with the kinds of heads, the tokens and the table of the suite between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    text = between(text, grid(*kinds(seen)), "<!-- kinds -->", "<!-- end of kinds -->")
    tokens = [(repr(t["text"]), str(t["position"]), f"{t['received']:.3f}") for t in seen["top_tokens"][:6]]
    text = between(
        text, grid(("token", "position", "weight received"), tokens), "<!-- tokens -->", "<!-- end of tokens -->"
    )
    machine, versions = suite["machine"], suite["versions"]
    table = (
        f"{grid(inspect.COLUMNS, inspect.rows(suite))}\n\n{machine['processor']}, {machine['threads']} thread, torch "
        f"{versions['torch']}; `{suite['command']}`."
    )
    return between(text, table, "<!-- inspect -->", "<!-- end of inspect -->")


def kinds(seen: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row per kind of head: how many there are, and the three that are most of it."""
    named = Counter(kind for row in seen["kinds"] for kind in row)
    rows: list[tuple[str, ...]] = []
    for kind, scores in seen["scores"].items():
        values = np.array(scores)
        best = np.argsort(-values, axis=None, kind="stable")[:3]
        places = [divmod(int(place), values.shape[1]) for place in best]
        most = ", ".join(f"{layer}.{head} ({values[layer, head]:.2f})" for layer, head in places)
        rows.append((kind, KINDS[kind], str(named[kind]), most))
    return ("kind", "what it does", "heads", "most of it: layer.head (share)"), rows


def kinds_picture(seen: dict[str, Any]) -> Picture:
    """Layers across, heads down, a colour for each kind."""
    figure, axes = canvas(6.4, 3.0)
    for colour, kind in zip(COLOURS, seen["scores"], strict=False):
        places = [(x, y) for x, row in enumerate(seen["kinds"]) for y, told in enumerate(row) if told == kind]
        if places:
            across, down = zip(*places, strict=True)
            axes.scatter(across, down, marker="s", s=70, color=colour, label=kind)
    axes.set(xlabel="layer", ylabel="head", ylim=(seen["heads"] - 0.5, -0.5))
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize="small")
    return as_svg(figure, "Kinds of heads", "")


def tokens_picture(seen: dict[str, Any]) -> Picture:
    """Entropy, WAAD and attention received along the text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    for colour, (name, label), axes in zip(COLOURS, CURVES.items(), figure.subplots(3, sharex=True), strict=False):
        values = np.array(seen["signals"][name])
        axes.plot(values, color=colour, linewidth=0.6)
        axes.set_ylabel(label, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
        if name == "received":
            axes.set(yscale="log", xlabel="token")
    return as_svg(figure, "Token by token", "")


def write(root: Path) -> None:
    """Bring the page and its pictures up to date."""
    seen, suite = committed(root)
    page = root / "docs" / "inspect.md"
    page.write_text(inspection(page.read_text(), seen, suite))
    (root / IMAGES / "inspect-kinds.svg").write_text(kinds_picture(seen).content)
    (root / IMAGES / "inspect-tokens.svg").write_text(tokens_picture(seen).content)


if __name__ == "__main__":
    write(Path())
