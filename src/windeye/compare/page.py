"""A comparison as files: JSON for machines, a page for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from windeye.compare.parts import Result
from windeye.compare.tables import Table
from windeye.report import Picture, html
from windeye.report.writing import write_whole


@dataclass(frozen=True)
class Shown:
    """How a comparison is shown: its title, the headings of its parts in order, and a part's pictures and table."""

    title: str
    headings: dict[str, str]
    pictures: Callable[[str, Result], Sequence[Picture]]
    table: Callable[[str, Result], Table]


def page(result: Result, shown: Shown) -> str:
    """A self-contained page: of each part the pictures, the table, and where the numbers are from."""
    pieces = [html.table(("mechanism", "is"), list(result["arms"].items()))]
    for part, heading in shown.headings.items():
        if part in result["parts"]:
            found = result["parts"][part]
            pieces += [
                html.heading(heading),
                *map(html.picture, shown.pictures(part, found)),
                html.table(*shown.table(part, found)),
                html.paragraph(f"{found['date']}, budget {found['budget']}, {len(found['seeds'])} seeds", quiet=True),
                f"<pre>{escape(found['command'])}</pre>",
                html.facts(found["machine"]),
                html.facts(found["versions"]),
            ]
    return html.page(shown.title, pieces)


def save(result: Result, folder: Path, shown: Shown) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html``, whole or not at all; parts of an earlier result there are kept."""
    json_path, html_path = folder / "report.json", folder / "report.html"
    if json_path.is_file():
        result = joined(json.loads(json_path.read_text()), result)
    for path, text in ((json_path, json.dumps(result, indent=1) + "\n"), (html_path, page(result, shown))):
        write_whole(path, text)
    return json_path, html_path


def joined(before: Result, after: Result) -> Result:
    """Two results in one; where both have a part, the later one's counts.

    Example:
        >>> old, new = {"arms": {"a": "A"}, "parts": {"recall": 1}}, {"arms": {"b": "B"}, "parts": {"recall": 2}}
        >>> joined(old, new)
        {'arms': {'a': 'A', 'b': 'B'}, 'parts': {'recall': 2}}
    """
    return {
        **after,
        "arms": {**before["arms"], **after["arms"]},
        "parts": {**before["parts"], **after["parts"]},
    }
