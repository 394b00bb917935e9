"""The comparison of mixers of maps as tables: columns, and rows of text."""

from __future__ import annotations

from windeye.compare.parts import Result
from windeye.compare.tables import Table, mean, plus_minus, told
from windeye.compare.vision.speed import WORKS

MIB = 2**20


def table(part: str, found: Result) -> Table:
    """Columns and rows of one part of a result."""
    return accuracy(found) if part == "accuracy" else speed(found)


def accuracy(found: Result) -> Table:
    """Accuracy on test pictures beside what it costs, best first."""
    columns = ("mixer", "accuracy", "rate", "parameters", "M multiply-adds", "k pairs", "ms of training an image")
    arms = found["results"]["arms"]
    plan = found["plan"]
    rows: list[tuple[str, ...]] = []
    for name, arm in sorted(arms.items(), key=lambda item: -mean(item[1]["runs"], "accuracy")):
        runs = arm["runs"]
        images = plan["batch_size"] * mean(runs, "steps")
        rows.append(
            (
                told(name, runs),
                plus_minus([100 * run["accuracy"] for run in runs], "%"),
                f"{arm['choice']['rate']:g}",
                f"{arm['parameters']:,}",
                f"{arm['multiply_adds'] / 1e6:.1f}",
                f"{arm['pairs'] / 1e3:.0f}",
                f"{1000 * mean(runs, 'seconds') / images:.2f}" if images else "-",
            )
        )
    return columns, rows


def speed(found: Result) -> Table:
    """Milliseconds of an image at each size of the map, and the memory of a batch at the largest."""
    plan = found["plan"]
    maps = [f"{side // plan['skeleton']['patch']}²" for side in plan["sides"]]
    columns = ("tokens of the first map", *maps, f"MiB at {maps[-1]}")
    rows: list[tuple[str, ...]] = []
    for device, works in found["results"].items():
        for work in WORKS:
            for name, points in works[work].items():
                times = ("-" if point["seconds"] is None else f"{1000 * point['seconds']:.3g}" for point in points)
                peak = points[-1]["bytes"]
                rows.append((f"{device}, {work}, ms: {name}", *times, "-" if peak is None else f"{peak / MIB:.3g}"))
    return columns, rows
