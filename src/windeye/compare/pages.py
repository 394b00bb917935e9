"""The page of the comparisons shows what `benchmarks/` holds: `make tables` writes it, a test keeps it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from windeye.bench.table import between, grid
from windeye.compare.page import Shown
from windeye.compare.parts import Result
from windeye.compare.sequence import page as sequence
from windeye.compare.vision import page as vision

IMAGES = Path("docs") / "images"
SHOWN: dict[str, Shown] = {"sequence": sequence.SHOWN, "vision": vision.SHOWN, "vision-scenes": vision.SHOWN}
"""Comparisons by their name in files. What stands behind a hyphen tells the parts of a second run from the first's."""


def committed(root: Path) -> dict[str, Result]:
    """The last comparisons that were committed in a checkout."""
    files = {name: root / "benchmarks" / f"compare-{name}.json" for name in SHOWN}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}


def comparison(text: str, name: str, result: Result) -> str:
    """The page with the arms of a comparison and the table of every part between their marks.

    Raises:
        ValueError: the marks are missing.
    """
    if name == result["comparison"]:
        arms = grid(("mechanism", "is"), list(result["arms"].items()))
        text = between(text, arms, f"<!-- {name} -->", f"<!-- end of {name} -->")
    shown = SHOWN[name]
    for part in shown.headings:
        if part in result["parts"]:
            found, mark = result["parts"][part], marked(part, name)
            inner = f"{grid(*shown.table(part, found))}\n\n{source(found)}"
            text = between(text, inner, f"<!-- {mark} -->", f"<!-- end of {mark} -->")
    return text


def marked(part: str, name: str) -> str:
    """What a part is called on the page and in the names of its pictures.

    Example:
        >>> marked("accuracy", "vision"), marked("accuracy", "vision-scenes")
        ('accuracy', 'accuracy-scenes')
    """
    return "-".join((part, *name.split("-")[1:]))


def source(found: dict[str, Any]) -> str:
    """Where the numbers of a table are from."""
    machine, rounds = found["machine"], found["plan"].get("rounds")
    told = f"Medians of {rounds} rounds" if rounds else f"{len(found['seeds'])} seeds, mean and standard deviation"
    return (
        f"{told}; {machine['processor']}, {machine['threads']} thread, torch {found['versions']['torch']}; "
        f"`{found['command']}`."
    )


def write(root: Path) -> None:
    """Bring the page and its pictures up to date."""
    page = root / "docs" / "compare.md"
    for name, result in committed(root).items():
        page.write_text(comparison(page.read_text(), name, result))
        for part, found in result["parts"].items():
            for place, picture in enumerate(SHOWN[name].pictures(part, found)):
                which = f"-{place + 1}" if place else ""
                (root / IMAGES / f"compare-{marked(part, name)}{which}.svg").write_text(picture.content)


if __name__ == "__main__":
    write(Path())
