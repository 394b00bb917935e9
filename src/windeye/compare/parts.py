"""A comparison part by part: each with its plan, its finished pieces kept, and where its numbers are from."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from windeye.report import BUDGETS, Budget, Recorder, machine, versions
from windeye.report.code import PACKAGE, digest
from windeye.train.threads import one_thread

Result = dict[str, Any]
"""Plain data: ``arms`` in words; in ``parts`` the numbers of each part that was run, with plan, machine and command."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Asked:
    """What whoever runs a comparison says of all its parts."""

    comparison: str
    """The package below `windeye.compare` whose code makes the numbers."""
    budget: Budget
    seeds: tuple[int, ...]
    device: str
    folder: Path | None
    """Where finished pieces are kept; the same settings, versions and code read them back."""
    command: str
    progress: Progress


def ran(parts: Sequence[str], plans: Mapping[str, Any], do: Callable[[str, Recorder, Progress], Result], asked: Asked,
        conditions: Result | None = None) -> dict[str, Result]:  # fmt: skip
    """Run parts on one thread, each by ``do(part, recorder, progress)``, and note what they come from.

    Args:
        parts: in their order.
        plans: of each part a dataclass.
        asked: see there.
        conditions: what else finished pieces depend on.
    """
    found: dict[str, Result] = {}
    with one_thread():
        for done, part in enumerate(parts):
            settings = asdict(plans[part])

            def tell(name: str, share: float, done: int = done) -> None:
                asked.progress(name, (done + share) / len(parts))

            kept = {**settings, **(conditions or {}), "device": asked.device, "versions": versions()}
            record = None if asked.folder is None else asked.folder / "parts.jsonl"
            found[part] = {
                "results": do(part, Recorder(record, {**kept, "code": code(asked.comparison)}), tell),
                "budget": asked.budget,
                "seeds": list(asked.seeds),
                "plan": settings,
                "date": datetime.date.today().isoformat(),
                "command": asked.command,
                "machine": machine(),
                "versions": versions(),
            }
    return found


def code(comparison: str, package: Path = PACKAGE) -> str:
    """A digest of a comparison's code, of what comparisons share, and of the kernels, the compiled one included."""
    shared = (package / "compare").glob("*.py")
    folders = (package / "compare" / comparison, package / "kernels")
    return digest(sorted([*shared, *(path for folder in folders for path in folder.rglob("*.py"))]), package)


def check_asked(parts: Sequence[str], known: Sequence[str], budget: str) -> None:
    """Refuse unknown parts and budgets, and no part at all."""
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    for part in parts:
        if part not in known:
            raise ValueError(f"unknown part {part!r}; known are {', '.join(known)}")
    if not parts:
        raise ValueError(f"parts must name at least one of {', '.join(known)}")
