"""The page of a probe: what each pool reads for its size, over epochs, and where its queries look."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from windeye.models.probing import groups
from windeye.report import Picture, html
from windeye.report.figures import COLOURS, as_png, as_svg, canvas

COLUMNS = ("pool", "accuracy %", "best epoch %", "parameters", "ms per step", "overlap", "evenness")
FULL = 4
"""So many times the mean weight has the full colour; looks at everything alike stay pale."""


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per pool, and one of the neighbours."""
    table: list[tuple[str, ...]] = []
    for name, found in result["pools"].items():
        maps = found["maps"]
        looks = ("", "") if maps is None else (f"{maps['overlap']:.2f}", f"{maps['evenness']:.2f}")
        table.append(
            (
                name, f"{found['accuracy']:.2f}", f"{found['best']:.2f}", f"{found['parameters']:,}",
                f"{1000 * found['seconds_per_step']:.1f}", *looks,
            )
        )  # fmt: skip
    if (nearest := result["nearest"]) is not None:
        table.append(("20 nearest", f"{nearest['accuracy']:.2f}", f"{nearest['best']:.2f}", "0", "", "", ""))
    return table


def page(result: dict[str, Any], looks: Sequence[Picture]) -> str:
    """A self-contained page."""
    encoder, data = result["encoder"], result["data"]
    tokens = " x ".join(map(str, encoder["tokens"]))
    read = f"{encoder['model']}, weights {encoder['weights']}: {tokens} tokens of {encoder['dim']} channels"
    seen = f"{data['name']}: {data['classes']} classes, {data['train']:,} images to train on, {data['test']:,} to test"
    return html.page(
        f"What can be read from {encoder['model']}",
        [
            html.paragraph(f"{read}. {seen}, {data['side']} pixels wide."),
            html.table(COLUMNS, rows(result)),
            html.paragraph(
                "The best epoch is chosen on the test images, as the study does; the column before it is not. Of "
                "neighbours it is the best of the sweep. Parameters are those of the head. Overlap is the mean cosine "
                "of two maps, evenness the entropy of a map over that of a look at all tokens alike.",
                quiet=True,
            ),
            *map(html.picture, (_sizes(result), _epochs(result), *looks)),
            f"<pre>{escape(result['command'])}</pre>",
            html.facts(result["machine"]),
            html.facts(result["versions"]),
        ],
    )


def _sizes(result: dict[str, Any]) -> Picture:
    figure, axes = canvas()
    for place, (name, found) in enumerate(result["pools"].items()):
        axes.plot(
            found["parameters"], found["accuracy"], "os"[place // len(COLOURS) % 2], label=name,
            color=COLOURS[place % len(COLOURS)],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters, with the classifier")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "Accuracy for the size of the head", "After the last epoch.")


def _epochs(result: dict[str, Any]) -> Picture:
    figure, axes = canvas()
    for place, name in enumerate(result["pools"]):
        course = [row[f"accuracy {name}"] for row in result["history"]]
        axes.plot(range(1, len(course) + 1), course, label=name, color=COLOURS[place % len(COLOURS)])
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=7)
    return as_svg(figure, "Accuracy over epochs", "On the test images.")


def look(
    name: str, images: UInt8[Tensor, "n channels side side"], maps: Float[Tensor, "n maps height width"]
) -> Picture:
    """Images, and over each the groups of maps in colours: a token has the colour of the group that weighs it most,
    the stronger the more it weighs."""
    from matplotlib.figure import Figure

    which = groups(maps, len(COLOURS)).numpy()
    painted = [_painted(own, which) for own in maps.float().numpy()]
    figure = Figure(figsize=(1.5 * len(images), 3.1), layout="constrained")
    for place, (image, colours) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), painted, strict=True)):
        for line, shown in enumerate((image, colours)):
            axes = figure.add_subplot(2, len(images), 1 + place + line * len(images))
            axes.set_axis_off()
            axes.imshow(shown.repeat(3, axis=2) if shown.shape[2] == 1 else shown, interpolation="nearest")
    count = int(which.max()) + 1
    caption = f"{maps.shape[1]} maps in {count} groups; a token has the colour of the group that weighs it most."
    return as_png(figure, f"Where {name} looks", caption)


def _painted(maps: Float[np.ndarray, "maps height width"], which: np.ndarray) -> Float[np.ndarray, "height width 3"]:
    count = int(which.max()) + 1
    together = np.stack([maps[which == group].mean(axis=0) for group in range(count)])
    together /= np.maximum(together.mean(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    palette = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in COLOURS[:count]])
    strength = np.minimum(together.max(axis=0) / FULL, 1)[..., None]
    return 1 - strength * (1 - palette[together.argmax(axis=0)])
