"""The page of the comparison shows what `benchmarks/` holds: `make tables` writes it, a test keeps it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from windeye.bench.table import between, grid
from windeye.compare.figures import picture
from windeye.compare.sequence import PARTS, Result
from windeye.compare.tables import table

IMAGES = Path("docs") / "images"


def committed(root: Path) -> Result:
    """The last comparison that was committed in a checkout."""
    result: Result = json.loads((root / "benchmarks" / "compare-sequence.json").read_text())
    return result


def comparison(text: str, result: Result) -> str:
    """The page with the arms and the table of every part between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    arms = grid(("mechanism", "is"), list(result["arms"].items()))
    text = between(text, arms, "<!-- arms -->", "<!-- end of arms -->")
    for part in PARTS:
        if part in result["parts"]:
            found = result["parts"][part]
            inner = f"{grid(*table(part, found))}\n\n{source(found)}"
            text = between(text, inner, f"<!-- {part} -->", f"<!-- end of {part} -->")
    return text


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
    result = committed(root)
    page = root / "docs" / "compare.md"
    page.write_text(comparison(page.read_text(), result))
    for part, found in result["parts"].items():
        (root / IMAGES / f"compare-{part}.svg").write_text(picture(part, found).content)


if __name__ == "__main__":
    write(Path())
