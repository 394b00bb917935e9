"""A comparison part by part: each with its plan, its finished pieces kept, and where its numbers are from."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from windeye.data.sequences import check_integer
from windeye.report import BUDGETS, Budget, Pieces, Recorder, machine, versions
from windeye.report.code import PACKAGE, digest
from windeye.train.threads import one_thread

Result = dict[str, Any]
"""Plain data: ``arms`` in words; in ``parts`` the numbers of each part that was run, with plan, machine and command."""

Progress = Callable[[str, float], None]


class Named(Protocol):
    """An arm: its name, and what it is in words."""

    @property
    def name(self) -> str: ...

    @property
    def words(self) -> str: ...


ArmT = TypeVar("ArmT", bound=Named)
PlanT = TypeVar("PlanT")


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


@dataclass(frozen=True)
class Work(Generic[ArmT, PlanT]):
    """What one part of a comparison is given."""

    arms: tuple[ArmT, ...]
    plan: PlanT
    seeds: tuple[int, ...]
    device: str
    folder: Path | None
    recorder: Recorder
    progress: Progress

    def pieces(self, total: float) -> Pieces:
        """The work of the part, by the weights of all pieces together."""
        return Pieces(self.recorder, self.progress, total)


@dataclass(frozen=True)
class Part:
    """One part of a comparison: its plan, a dataclass, and what does it."""

    plan: Any
    do: Callable[[Work[Any, Any]], Result]


def compared(
    asked: Asked, arms: tuple[Named, ...], parts: Mapping[str, Part], conditions: Result | None = None
) -> Result:
    """Run parts in their order on one thread, and note what they come from.

    Args:
        asked: see there.
        arms: what is compared.
        parts: by name.
        conditions: what else finished pieces depend on.
    """
    found: dict[str, Result] = {}
    with one_thread():
        for done, (name, part) in enumerate(parts.items()):
            settings = asdict(part.plan)

            def tell(piece: str, share: float, done: int = done) -> None:
                asked.progress(piece, (done + share) / len(parts))

            kept = {**settings, **(conditions or {}), "device": asked.device, "versions": versions()}
            record = None if asked.folder is None else asked.folder / "parts.jsonl"
            recorder = Recorder(record, {**kept, "code": code(asked.comparison)})
            work = Work(arms, part.plan, asked.seeds, asked.device, asked.folder, recorder, tell)
            found[name] = {
                "results": part.do(work),
                "budget": asked.budget,
                "seeds": list(asked.seeds),
                "plan": settings,
                "date": datetime.date.today().isoformat(),
                "command": asked.command,
                "machine": machine(),
                "versions": versions(),
            }
    return {"comparison": asked.comparison, "arms": {arm.name: arm.words for arm in arms}, "parts": found}


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


def seeds_of(count: int | None, usual: int) -> tuple[int, ...]:
    """The first so many seeds.

    Raises:
        ValueError, TypeError: ``seeds`` is no number from 1 on.
    """
    if count is not None:
        check_integer("seeds", count, 1)
    return tuple(range(usual if count is None else count))


def arms_named(known: Mapping[str, ArmT], names: Sequence[str] | None, baseline: str, kind: str) -> tuple[ArmT, ...]:
    """The arms of these names in the order in which they are known, the baseline always among them; all for None.

    Raises:
        ValueError: an unknown name; says which there are.
    """
    if names is None:
        return tuple(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {unknown[0]!r}; known are {', '.join(known)}")
    return tuple(arm for name, arm in known.items() if name in names or name == baseline)
