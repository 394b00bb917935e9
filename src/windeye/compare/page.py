"""The comparison as files: JSON for machines, a page for people."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from windeye.compare.figures import picture
from windeye.compare.sequence import PARTS, Result
from windeye.compare.tables import table
from windeye.report import html

TITLES = {
    "recall": "Recall",
    "language": "Text",
    "throughput": "Speed",
}


def page(result: Result) -> str:
    """A self-contained page: of each part the picture, the table, and where the numbers are from."""
    pieces = [html.table(("mechanism", "is"), list(result["arms"].items()))]
    for part in PARTS:
        if part in result["parts"]:
            found = result["parts"][part]
            pieces += [
                html.heading(TITLES[part]),
                html.picture(picture(part, found)),
                html.table(*table(part, found)),
                html.paragraph(f"{found['date']}, budget {found['budget']}, {len(found['seeds'])} seeds", quiet=True),
                f"<pre>{escape(found['command'])}</pre>",
                html.facts(found["machine"]),
                html.facts(found["versions"]),
            ]
    return html.page("Sequence mixers side by side", pieces)


def save(result: Result, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html``, whole or not at all; parts of an earlier result there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / "report.json", folder / "report.html"
    if json_path.is_file():
        result = joined(json.loads(json_path.read_text()), result)
    for path, text in ((json_path, json.dumps(result, indent=1) + "\n"), (html_path, page(result))):
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(path)
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
