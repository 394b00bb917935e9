"""What the numbers of an experiment come from: finished parts are read back only where that is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windeye.papers.card import Card, cards
from windeye.papers.experiment import Budget
from windeye.report import versions
from windeye.report.code import PACKAGE, digest


def conditions(card: Card, *, budget: Budget, device: str, data: Path | None) -> dict[str, Any]:
    """The settings under which finished parts are kept: what was asked for, the versions, and the code.

    Seeds are not among them: parts say their seed in their names, so that a run with more seeds reads back the others.
    """
    return {
        "slug": card.slug,
        "budget": budget,
        "device": device,
        "data": str(data),
        "versions": versions(),
        "code": code(card),
    }


def code(card: Card, package: Path = PACKAGE) -> str:
    """A digest of a paper's module or package, of what papers share, and of the kernels, the compiled one included.

    Other papers do not count. Nor does the rest of the library: its results are pinned by tests, and every commit
    would otherwise throw away what hours of training have left.
    """
    return digest(sources(card, package), package)


def sources(card: Card, package: Path = PACKAGE) -> list[Path]:
    """The files that `code` reads, in order.

    Example:
        >>> from windeye.papers.card import find
        >>> names = [path.name for path in sources(find("fna"))]
        >>> "fna.py" in names, "experiment.py" in names, "lanes.py" in names, "judgement.py" in names
        (True, True, True, False)
        >>> "recall.py" in names
        True
    """
    papers = package / "papers"
    others = {other.module for other in cards().values()} - {card.module}
    own = [path for path in papers.rglob("*.py") if Path(path.relative_to(papers).parts[0]).stem not in others]
    compare = package / "compare"
    # No paper stands on the comparison of vision backbones.
    shared = [*compare.glob("*.py"), *(compare / "sequence").rglob("*.py"), *(package / "kernels").rglob("*.py")]
    return sorted((*own, *shared))
