"""Attention drawn on photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from windeye.inspection.images.layers import LayerLook, Query, named
from windeye.inspection.images.look import Look
from windeye.inspection.images.overlay import overlay, thumbnail
from windeye.inspection.images.photo import Pair, Photo
from windeye.inspection.images.placement import Placement
from windeye.report.evidence import Picture
from windeye.report.figures import COLOURS, as_png, as_svg, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "#ff3d2e"
RIM = "#ffffff"


def overview(seen: Look) -> Picture:
    """Every layer: the mean over its heads, for the first query."""
    stages = sorted({layer.layer.stage for layer in seen.layers})
    rows = [[layer for layer in seen.layers if layer.layer.stage == stage] for stage in stages]
    wide = min(max(map(len, rows)), 8)
    lines = [row[at : at + wide] for row in rows for at in range(0, len(row), wide)]
    figure, panels = _panels(seen.photo.size, len(lines), wide, 1.45)
    for line, axes in zip(lines, panels, strict=True):
        for layer, ax in zip(line, axes, strict=False):
            _draw(ax, seen, layer, 0, range(layer.maps.shape[1]), small=True)
            ax.set_title(str(layer.layer), fontsize=7, pad=2, color="#e4572e" if layer is seen.here else "#1d2730")
    return as_png(
        figure,
        "Every layer",
        f"Mean over heads, query {named(seen.queries[0])}; each picture is as bright as its heaviest token. Layers are "
        "stage.block; blocks without attention are left out.",
    )


def kinds(seen: Look) -> Picture:
    """The chosen layer: the photograph with its queries, and the mean over heads, or over heads of each kind."""
    layer = seen.here
    means = [(part, kind, among) for part in seen.branches for kind, among in part.kinds().items()]
    figure, panels = _panels(seen.photo.size, len(seen.queries), 1 + len(means), 2.9)
    for number, axes in enumerate(panels):
        _photograph(axes[0], seen.photo)
        _mark(axes[0], seen.queries[number])
        _ticks(axes[0], seen.photo.size)
        for (part, kind, among), ax in zip(means, axes[1:], strict=True):
            _draw(ax, seen, part, number, among)
            branch = f"{part.layer.branch}: " if part.layer.branch else ""
            ax.set_title(branch + ("mean over heads" if kind == "mean" else f"{kind} heads"), fontsize=8, pad=3)
    figure.suptitle(f"layer {layer.layer}: {layer.mixer}", fontsize=9)
    rows, columns = layer.place.grid
    lost = layer.elsewhere.mean()
    told = f" {lost:.1%} of the weight lies on padding or is read off the map." if lost > 5e-4 else ""
    return as_png(
        figure,
        "Where queries look",
        f"Layer {layer.layer} ({layer.mixer}), {rows} x {columns} tokens. White borders are around tokens that "
        f"get weight in any of the heads.{told}",
    )


def heads(seen: Look, query: int = 0) -> Picture:
    """The chosen layer, head by head."""
    layer = seen.here
    count = layer.maps.shape[1]
    across = min(count, 6)
    figure, panels = _panels(seen.photo.size, -(-count // across), across, 1.75)
    for head, ax in zip(range(count), (ax for axes in panels for ax in axes), strict=False):
        _draw(ax, seen, layer, query, [head], small=True)
        kind = f" {layer.heads[head]}" if layer.heads else ""
        ax.set_title(f"head {head}{kind}", fontsize=7, pad=2)
    return as_png(
        figure,
        f"Heads of layer {layer.layer}, query {named(seen.queries[query])}",
        "Each picture is as bright as its heaviest token.",
    )


def rectangles(seen: Look) -> Picture | None:
    """The rectangles that the heads of varied windows read, and the places inside them."""
    layer = seen.here
    if layer.rectangles is None or layer.samples is None:
        return None
    figure, panels = _panels(seen.photo.size, 1, len(seen.queries), 4.2)
    colours = _colours(layer.rectangles.shape[1])
    rows, columns = layer.samples
    for number, ax in enumerate(panels[0]):
        _photograph(ax, seen.photo, dim=0.6)
        for box, colour in zip(layer.rectangles[number], colours, strict=True):
            left, top, right, bottom = box
            across, down = ((np.arange(n) + 0.5) / n for n in (columns, rows))
            xs, ys = np.meshgrid(left + across * (right - left), top + down * (bottom - top))
            ax.plot(xs.ravel() - 0.5, ys.ravel() - 0.5, ".", color=colour, markersize=2.2)
            ax.plot(
                np.array([left, right, right, left, left]) - 0.5, np.array([top, top, bottom, bottom, top]) - 0.5,
                color=colour, linewidth=1.4,
            )  # fmt: skip
        token = layer.tokens[number]
        if token is not None:
            _outline(ax, layer.place.box(token), RIM, 0.8)
        _mark(ax, seen.queries[number])
    return as_png(
        figure,
        f"Sampled rectangles of layer {layer.layer}",
        "One colour a head: the rectangle that the query's window reads its keys from, and the places of the keys.",
    )


def routes(seen: Look) -> Picture | None:
    """The regions that the query's region attends to, and how the regions choose each other."""
    layer = seen.here
    if layer.routes is None:
        return None
    found = layer.routes
    figure, panels = _panels(seen.photo.size, 1, len(seen.queries) + 1, 3.4)
    *shown, whole = panels[0]
    for number, ax in enumerate(shown):
        _photograph(ax, seen.photo, dim=0.6)
        own = found.own[number]
        start = _middle(found.boxes[own])
        for rank, region in enumerate(found.chosen[own]):
            box = found.boxes[region]
            _outline(ax, box, COLOURS[1], 1.6)
            if region != own:
                _arrow(ax, start, _middle(box), 1.0)
            if _area(box) > 0:
                ax.text(box[0] + 1, box[1] + 1, str(rank + 1), color="white", fontsize=6, va="top")
        _outline(ax, found.boxes[own], RIM, 1.6)
        _mark(ax, seen.queries[number])
        ax.set_title("regions that the query's region keeps", fontsize=8, pad=3)
    _photograph(whole, seen.photo, dim=0.4)
    there = [region for region, box in enumerate(found.boxes) if _area(box) > 0]
    often = np.bincount(found.chosen[there].ravel(), minlength=len(found.boxes))
    for region in there:
        left, top, right, bottom = found.boxes[region]
        alpha = 0.75 * often[region] / max(often.max(), 1)
        whole.fill(
            np.array([left, right, right, left]) - 0.5, np.array([top, top, bottom, bottom]) - 0.5,
            color=COLOURS[1], alpha=alpha, linewidth=0,
        )  # fmt: skip
        best = next((kept for kept in found.chosen[region] if kept != region and kept in there), None)
        if best is not None:
            _arrow(whole, _middle(found.boxes[region]), _middle(found.boxes[best]), 0.5)
    whole.set_title("all regions", fontsize=8, pad=3)
    return as_png(
        figure,
        f"Region graph of layer {layer.layer}",
        f"Numbers are ranks of the {found.chosen.shape[1]} kept regions. Right: an arrow from each region to the best "
        "other one that it keeps; the more regions keep one, the more it is coloured.",
    )


def spectra(seen: Look) -> Picture | None:
    """How the outputs of heads of several kinds fall with frequency."""
    layer = seen.here
    if layer.spectra is None:
        return None
    figure, axes = canvas(5.2, 3.2)
    for name, (at, height) in layer.spectra.items():
        axes.plot(at[1:], height[1:] - height[1:].max(), label=name, linestyle="--" if name == "input" else "-")
    axes.set_xlabel("frequency, cycles per token")
    axes.set_ylabel("log amplitude, 0 at its peak")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(
        figure,
        f"Frequencies in layer {layer.layer}",
        "Mean log amplitude over channels and rings of equal frequency, of what comes into the layer and of its heads' "
        "outputs by kind; the mean of the map is left out.",
    )


def outputs(seen: Look) -> Picture | None:
    """Where on the photograph the outputs of heads of several kinds differ from their mean."""
    layer = seen.here
    if layer.outputs is None:
        return None
    figure, panels = _panels(seen.photo.size, 1, len(layer.outputs), 2.9)
    for (kind, strength), ax in zip(layer.outputs.items(), panels[0], strict=True):
        _show(ax, overlay(seen.photo, layer.place, strength), seen.photo.size)
        ax.set_title(f"{kind} heads", fontsize=8, pad=3)
    return as_png(
        figure,
        f"Outputs in layer {layer.layer}",
        "How far the output of each token is from the mean over all tokens, root mean square over channels; each as "
        "bright as its largest. It does not depend on the query.",
    )


def pictures(seen: Look) -> dict[str, Picture]:
    """Every picture that this look has, by the name of its file."""
    found = {name: draw(seen) for name, draw in PICTURES.items()}
    several = len(seen.queries) > 1
    for number in range(len(seen.queries)):
        found[f"heads-{number}" if several else "heads"] = heads(seen, number)
    return {name: picture for name, picture in found.items() if picture is not None}


PICTURES: dict[str, Callable[[Look], Picture | None]] = {
    "query": kinds,
    "layers": overview,
    "rectangles": rectangles,
    "routes": routes,
    "outputs": outputs,
    "spectra": spectra,
}
"""Those that there is at most one of."""


def _draw(
    axes: Axes, seen: Look, layer: LayerLook, query: int, heads: Sequence[int], *, small: bool = False
) -> None:  # fmt: skip
    """The mean over these heads on the photograph, the border of what they see, and the query."""
    weights = layer.maps[query, heads].mean(axis=0)
    _show(axes, overlay(seen.photo, layer.place, weights), seen.photo.size)
    _border(axes, layer.visible(query, heads), layer.place, 0.5 if small else 0.9)
    _mark(axes, seen.queries[query], small=small)


def _photograph(axes: Axes, photo: Photo, *, dim: float = 1.0) -> None:
    _show(axes, thumbnail(photo) * dim, photo.size)


def _show(axes: Axes, pixels: Float[np.ndarray, "tall wide 3"], size: Pair) -> None:
    """Pixels over the whole of a photograph; axes count in the pixels of the photograph."""
    height, width = size
    axes.imshow(np.clip(pixels, 0, 1), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="antialiased")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_aspect("equal")
    _bare(axes)


def _ticks(axes: Axes, size: Pair) -> None:
    """Pixels along the photograph, so that the next query can be read off."""
    for count, place in ((size[1], axes.set_xticks), (size[0], axes.set_yticks)):
        step = 10 ** int(np.log10(max(count, 1)))
        step = step if count >= 3 * step else max(step // 2, 1) if count >= 1.5 * step else max(step // 5, 1)
        place(np.arange(0, count, step))
    axes.tick_params(labelsize=6, length=2, color="#8a8a8a", labelcolor="#66727d")


def _mark(axes: Axes, query: Query, *, small: bool = False) -> None:
    if query == "class":
        return  # it has no place
    y, x = query
    for colour, width in (("white", 1.8), (MARK, 1.0)):
        axes.plot(
            [x], [y], "o", color="none", markeredgecolor=colour, markersize=5 if small else 8, markeredgewidth=width
        )


def _border(axes: Axes, inside: Bool[np.ndarray, "rows columns"], place: Placement, width: float) -> None:
    """Lines between tokens of which one is inside and one is not; none around what is all inside."""
    from matplotlib.collections import LineCollection

    if inside.all():
        return
    rows, columns = (np.asarray(borders) - 0.5 for borders in (place.rows, place.columns))
    padded = np.pad(inside, 1)
    lines = [
        [(columns[x], rows[y]), (columns[x + 1], rows[y])]
        for y, x in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    ]
    lines += [
        [(columns[x], rows[y]), (columns[x], rows[y + 1])]
        for y, x in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    ]
    axes.add_collection(LineCollection(lines, colors=RIM, linewidths=width))


def _outline(axes: Axes, box: Any, colour: str, width: float) -> None:
    left, top, right, bottom = (side - 0.5 for side in box)
    axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=width)


def _arrow(axes: Axes, start: Pair, end: Pair, width: float) -> None:
    axes.annotate(
        "", xy=end, xytext=start,
        arrowprops={"arrowstyle": "->", "color": "white", "linewidth": width, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _middle(box: Any) -> Any:
    return (box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5


def _area(box: Any) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["hsv"](head / count) for head in range(count)]


def _panels(size: Pair, rows: int, columns: int, side: float) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """Panels in the photograph's proportions, whose longer side is ``side`` inches."""
    from matplotlib.figure import Figure

    height, width = size
    tall, wide = side * min(1.0, max(height / width, 0.25)), side * min(1.0, max(width / height, 0.25))
    figure = Figure(figsize=(columns * (wide + 0.06) + 0.25, rows * (tall + 0.26) + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        _bare(axes)
    return figure, grid.tolist()


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
