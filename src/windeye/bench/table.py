"""Tables from committed results: the README shows them and a test keeps both equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windeye.bench.softmax import CASES

COLUMNS = ("tokens, window", "dense", "Flex", "windeye", "over dense", "over Flex", "bound", "training over dense")
BEGIN, END = "<!-- benchmark: softmax -->", "<!-- end of benchmark -->"


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case: milliseconds of a forward pass, ratios, and the ratio of forward + backward."""
    parts = result["parts"]
    table: list[tuple[str, ...]] = []
    for case in CASES:
        forward = parts[f"forward {case.name}"]
        training = parts[f"training {case.name}"]
        timings = forward["timings"]
        flex = timings.get("flex")
        table.append(
            (
                case.name,
                milliseconds(timings["dense"]["seconds"]),
                milliseconds(flex["seconds"]) if flex else "",
                milliseconds(timings["windeye"]["seconds"]),
                ratio(forward["over_dense"]),
                ratio(forward["over_flex"]) if flex else "",
                ratio(forward["flop_bound"]),
                ratio(training["over_dense"]),
            )
        )
    return table


def markdown(result: dict[str, Any]) -> str:
    """The table as Markdown, with the machine and versions it was measured on."""
    machine, versions = result["machine"], result["versions"]
    lines = [_line(COLUMNS), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
    lines += [_line(row) for row in rows(result)]
    lines.append("")
    lines.append(
        f"Milliseconds of a forward pass, float32, batch 1, 8 heads x 64; {machine['processor']}, "
        f"{machine['threads']} threads, torch {versions['torch']}; medians of one run: `{result['command']}`."
    )
    return "\n".join(lines)


def embed(text: str, result: dict[str, Any]) -> str:
    """The text with the table between its two marks replaced.

    Raises:
        ValueError: the marks are missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the text has no marks {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{markdown(result)}\n{END}{after}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def milliseconds(seconds: float) -> str:
    """Three digits below a hundred, whole milliseconds above."""
    return f"{1000 * seconds:.0f}" if seconds >= 0.0995 else f"{1000 * seconds:.1f}"


def ratio(value: float) -> str:
    """A factor such as 4.2x; two decimals where it is close to one."""
    return f"{value:.1f}x" if value >= 1.95 else f"{value:.2f}x"
