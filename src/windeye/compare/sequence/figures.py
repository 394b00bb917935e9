"""The comparison in pictures: recall against memory, text, and speed against length."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windeye.compare.parts import Result
from windeye.compare.sequence.arms import BASELINE
from windeye.report import Picture
from windeye.report.figures import COLOURS, as_svg, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def picture(part: str, found: Result) -> Picture:
    """The picture of one part of a result."""
    return {"recall": recall, "language": language, "throughput": throughput}[part](found)


def recall(found: Result) -> Picture:
    """Accuracy over the bytes of state, a dot per seed."""
    figure, axes = canvas(7.4, 3.8)
    task = found["plan"]["task"]
    for place, (name, arm) in enumerate(found["results"].items()):
        runs = arm["runs"]
        mark(axes, name, place, runs[0]["state_bytes"], [run["accuracy"] for run in runs])
    over_state(axes, f"state after {task['length']} tokens")
    caption = (
        f"{task['pairs']} pairs of key and value, then each key once more anywhere among {task['length']} tokens: how "
        "often the right value is named, over the memory of one sequence. Small dots are seeds."
    )
    return as_svg(figure, "Recall from how much memory", caption)


def mark(axes: Axes, name: str, place: int, state: float, accuracies: Sequence[float]) -> None:
    """The mean of an arm as a mark and its seeds as small dots; ``place`` decides colour and shape."""
    colour, shape = COLOURS[place % len(COLOURS)], "osD^"[place // len(COLOURS) % 4]
    points = [100 * accuracy for accuracy in accuracies]
    axes.plot([state], [statistics.fmean(points)], shape, color=colour, markersize=8, alpha=0.75, label=name)
    axes.plot([state] * len(points), points, ".", color=colour, markersize=5)


def over_state(axes: Axes, label: str) -> None:
    """Axes of accuracy over memory, with the names of the marks beside them."""
    axes.set_xscale("log", base=2)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(lambda state, _: f"{state / 1024:g}")
    axes.set_xlabel(f"{label}, KiB")
    axes.set_ylim(-4, 104)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def language(found: Result) -> Picture:
    """Bits per byte of each arm, best on top."""
    results = sorted(found["results"].items(), key=lambda item: statistics.fmean(_bits(item[1])))
    figure, axes = canvas(6.4, 0.9 + 0.32 * len(results))
    for place, (name, runs) in enumerate(results):
        colour = COLOURS[0] if name == BASELINE else COLOURS[1]
        axes.plot(_bits(runs), [place] * len(runs), "o", color=colour, alpha=0.45, markersize=5)
        axes.plot([statistics.fmean(_bits(runs))], [place], "|", color=colour, markersize=14, markeredgewidth=2.5)
    axes.set_yticks(range(len(results)), [name for name, _ in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlabel("bits per byte, held out")
    plan = found["plan"]
    caption = f"After {plan['steps']} steps on {plan['text']}, windows of {plan['length']} bytes. Less is better."
    return as_svg(figure, "A small language model of bytes", caption)


def throughput(found: Result) -> Picture:
    """Tokens per second of training and prefill, and milliseconds of a decoded token, over the length."""
    from matplotlib.figure import Figure

    lengths = found["plan"]["lengths"]
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, (work, label) in zip(
        panels,
        (("training", "training, tokens/s"), ("prefill", "prefill, tokens/s"), ("decoding", "decoding, ms per token")),
        strict=True,
    ):
        for place, (name, taken) in enumerate(found["results"][work].items()):
            known = [(length, seconds) for length, seconds in zip(lengths, taken, strict=True) if seconds is not None]
            values = [1000 * s if work == "decoding" else n / s for n, s in known]
            style = "-" if place < len(COLOURS) else "--"
            axes.plot(
                [n for n, _ in known], values, style, marker="o", markersize=3, label=name,
                color=COLOURS[place % len(COLOURS)],
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("tokens")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=7)
    plan = found["plan"]
    caption = (
        f"One layer of {plan['dim']} channels and {plan['heads']} heads, batch 1, one thread; medians, arms in turn. "
        f"Where a line ends, the next point would have taken more than {plan['most_seconds']:g} s."
    )
    return as_svg(figure, "Speed as sequences grow", caption)


def _bits(runs: list[dict[str, float]]) -> list[float]:
    return [run["bits_per_byte"] for run in runs]
