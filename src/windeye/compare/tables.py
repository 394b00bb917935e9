"""The comparison as tables: columns, and rows of text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from windeye.compare.sequence import Part, Result

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def table(part: Part, found: Result) -> Table:
    """Columns and rows of one part of a result."""
    return {"recall": recall, "language": language, "throughput": throughput}[part](found)


def recall(found: Result) -> Table:
    """Held-out accuracy beside the state that it is recalled from, best first."""
    length = found["plan"]["task"]["length"]
    columns = ("mechanism", f"state after {length} tokens", "accuracy", "steps", "rate", "parameters")
    rows: list[tuple[str, ...]] = []
    for name, arm in sorted(found["results"].items(), key=lambda item: -_mean(item[1]["runs"], "accuracy")):
        runs = arm["runs"]
        rows.append(
            (
                _told(name, runs),
                f"{runs[0]['state_bytes']:,} B",
                plus_minus([100 * run["accuracy"] for run in runs], "%"),
                f"{_mean(runs, 'steps'):.0f}",
                f"{arm['choice']['rate']:g}",
                f"{runs[0]['parameters']:,}",
            )
        )
    return columns, rows


def language(found: Result) -> Table:
    """Bits per byte of text that no arm has seen, best first."""
    length = found["plan"]["length"]
    columns = ("mechanism", "bits per byte", "perplexity", f"state after {length} bytes", "parameters", "CPU s")
    rows: list[tuple[str, ...]] = []
    for name, runs in sorted(found["results"].items(), key=lambda item: _mean(item[1], "bits_per_byte")):
        rows.append(
            (
                _told(name, runs),
                plus_minus([run["bits_per_byte"] for run in runs], digits=3),
                f"{2 ** _mean(runs, 'bits_per_byte'):.2f}",
                f"{runs[0]['state_bytes']:,} B",
                f"{runs[0]['parameters']:,}",
                f"{_mean(runs, 'seconds'):.0f}",
            )
        )
    return columns, rows


def throughput(found: Result) -> Table:
    """Thousands of tokens per second at each length, and milliseconds of a decoded token."""
    lengths = found["plan"]["lengths"]
    rows: list[tuple[str, ...]] = []
    for work, unit in (("training", "k tokens/s"), ("prefill", "k tokens/s"), ("decoding", "ms per token")):
        for name, taken in found["results"][work].items():
            cells = (_speed(work, length, seconds) for length, seconds in zip(lengths, taken, strict=True))
            rows.append((f"{work}, {unit}: {name}", *cells))
    return ("work", *(f"{length:,}" for length in lengths)), rows


def plus_minus(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """Mean and sample standard deviation.

    Example:
        >>> plus_minus([97.0, 99.0], "%")
        '98.0 ± 1.4 %'
    """
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}{' ' + unit if unit else ''}"


def _told(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """The name, and how many of its trainings ended early because a number was no longer finite."""
    diverged = sum(run["diverged"] for run in runs)
    return f"{name} ({diverged} of {len(runs)} diverged)" if diverged else name


def _speed(work: str, length: int, seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.2f}" if work == "decoding" else f"{length / seconds / 1000:.1f}"


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.fmean(run[name] for run in runs)
