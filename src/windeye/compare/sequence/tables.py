"""The comparison as tables: columns, and rows of text."""

from __future__ import annotations

from windeye.compare.parts import Result
from windeye.compare.tables import Table, mean, plus_minus, told


def table(part: str, found: Result) -> Table:
    """Columns and rows of one part of a result."""
    return {"recall": recall, "language": language, "throughput": throughput}[part](found)


def recall(found: Result) -> Table:
    """Held-out accuracy beside the state that it is recalled from, best first."""
    length = found["plan"]["task"]["length"]
    columns = ("mechanism", f"state after {length} tokens", "accuracy", "steps", "rate", "parameters")
    rows: list[tuple[str, ...]] = []
    for name, arm in sorted(found["results"].items(), key=lambda item: -mean(item[1]["runs"], "accuracy")):
        runs = arm["runs"]
        rows.append(
            (
                told(name, runs),
                f"{runs[0]['state_bytes']:,} B",
                plus_minus([100 * run["accuracy"] for run in runs], "%"),
                f"{mean(runs, 'steps'):.0f}",
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
    for name, runs in sorted(found["results"].items(), key=lambda item: mean(item[1], "bits_per_byte")):
        rows.append(
            (
                told(name, runs),
                plus_minus([run["bits_per_byte"] for run in runs], digits=3),
                f"{2 ** mean(runs, 'bits_per_byte'):.2f}",
                f"{runs[0]['state_bytes']:,} B",
                f"{runs[0]['parameters']:,}",
                f"{mean(runs, 'seconds'):.0f}",
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


def _speed(work: str, length: int, seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.2f}" if work == "decoding" else f"{length / seconds / 1000:.1f}"
