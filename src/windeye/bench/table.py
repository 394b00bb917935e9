"""Tables of results as text: Markdown, and how times and ratios are written."""

from __future__ import annotations

from collections.abc import Sequence


def grid(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    return "\n".join(map(_line, [columns, ["---", *["---:"] * (len(columns) - 1)], *lines]))


def between(text: str, inner: str, begin: str, end: str) -> str:
    """The text with what stands between two marks replaced.

    Raises:
        ValueError: the marks are missing.
    """
    if begin not in text or end not in text:
        raise ValueError(f"the text has no marks {begin} and {end}")
    before, after = text.split(begin, 1)[0], text.split(end, 1)[1]
    return f"{before}{begin}\n{inner}\n{end}{after}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def milliseconds(seconds: float) -> str:
    """Three digits below a hundred, whole milliseconds above."""
    return f"{1000 * seconds:.0f}" if seconds >= 0.0995 else f"{1000 * seconds:.1f}"


def ratio(value: float) -> str:
    """A factor such as 4.2x; two decimals where it is close to one."""
    return f"{value:.1f}x" if value >= 1.95 else f"{value:.2f}x"
