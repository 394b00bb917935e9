"""The comparison of mixers of maps in pictures: accuracy over time and over pairs; time and memory over the map."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from windeye.compare.parts import Result
from windeye.compare.vision.arms import BASELINE, CONTROLS
from windeye.compare.vision.speed import WORKS
from windeye.report import Picture
from windeye.report.figures import COLOURS, as_svg, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pictures(part: str, found: Result) -> list[Picture]:
    """The pictures of one part of a result."""
    if part == "accuracy":
        return [over_pairs(found), over_time(found)]
    return [over_map(device, works, found["plan"]) for device, works in found["results"].items()]


def over_pairs(found: Result) -> Picture:
    """Accuracy over the pairs of query and key of one picture, a dot per seed."""
    figure, axes = canvas(7.6, 4.0)
    for place, (name, arm) in enumerate(found["results"]["arms"].items()):
        colour, shape = _style(place)
        points = [100 * run["accuracy"] for run in arm["runs"]]
        axes.plot([arm["pairs"]] * len(points), points, ".", color=colour, markersize=4)
        axes.plot(
            [arm["pairs"]], [statistics.fmean(points)], shape, color=colour, markersize=8, alpha=0.75, label=name
        )  # fmt: skip
    axes.set_xscale("symlog", linthresh=1e4)
    axes.set_xlabel("pairs of query and key per picture, all heads and blocks")
    axes.set_ylabel("accuracy, %")
    _finish(axes)
    data, plan = found["results"]["data"], found["plan"]
    caption = (
        f"{data['name']}, {plan['steps']} steps of {plan['batch_size']} pictures, tested with {data['test']:,}. Small "
        "dots are seeds."
    )
    return as_svg(figure, "Accuracy for how many pairs", caption)


def over_time(found: Result) -> Picture:
    """Accuracy on the watched pictures over the time of training, means over seeds."""
    figure, axes = canvas(7.6, 4.0)
    for place, (name, arm) in enumerate(found["results"]["arms"].items()):
        colour, shape = _style(place)
        looks = list(zip(*(run["history"] for run in arm["runs"]), strict=False))
        seconds = [statistics.fmean(look["seconds"] for look in at) for at in looks]
        points = [100 * statistics.fmean(look["accuracy"] for look in at) for at in looks]
        axes.plot(seconds, points, _line(name), color=colour, marker=shape, markersize=4, label=name)
    axes.set_xlabel("seconds of one processor")
    axes.set_ylabel("accuracy, %")
    _finish(axes)
    plan, data = found["plan"], found["results"]["data"]
    count = min(plan["watched"], data["test"])
    caption = f"On {count:,} test pictures, at the same steps for every arm; means over seeds."
    return as_svg(figure, "Accuracy as training goes on", caption)


def over_map(device: str, works: dict[str, Any], plan: Result) -> Picture:
    """Time and memory of training and inference over the tokens of the first map."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    maps = [side // plan["skeleton"]["patch"] for side in plan["sides"]]
    for row, (unit, scale, label) in zip(
        figure.subplots(2, 2), (("seconds", 1e3, "ms an image"), ("bytes", 2.0**-20, "MiB")), strict=True
    ):
        for axes, work in zip(row, WORKS, strict=True):
            for place, (name, points) in enumerate(works[work].items()):
                known = [(n, scale * point[unit]) for n, point in zip(maps, points, strict=True) if point[unit]]
                colour, shape = _style(place)
                axes.plot(
                    [n for n, _ in known], [value for _, value in known], _line(name), marker=shape, markersize=4,
                    label=name, color=colour,
                )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_xticks(maps, [f"{n}²" for n in maps])
            axes.minorticks_off()
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_title(f"{work}, {label}", fontsize=10)
            axes.set_xlabel("tokens of the first map")
            axes.spines[["top", "right"]].set_visible(False)
    figure.axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption = (
        f"{device}: the whole backbone, one thread on a CPU; medians, arms in turn. Memory is what a batch takes "
        f"beside weights and images. Where a line ends, more than {plan['most_seconds']:g} s were expected."
    )
    return as_svg(figure, f"Speed and memory as maps grow, {device}", caption)


def _style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], "osD^v"[place // len(COLOURS) % 4]


def _line(name: str) -> str:
    return "-" if name == BASELINE else ":" if name in CONTROLS else "--"


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
