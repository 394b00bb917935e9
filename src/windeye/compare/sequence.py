"""Sequence mixers side by side: what they recall from how much state, what they make of a text, how fast they are."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from windeye.compare.arms import Arm, selected
from windeye.compare.language import LanguagePlan, train_language
from windeye.compare.pieces import Pieces
from windeye.compare.recall import RecallPlan, cost, recall
from windeye.compare.throughput import WORKS, Seconds, ThroughputPlan, seconds
from windeye.data.sequences import check_integer
from windeye.data.tasks import MQAR
from windeye.report import BUDGETS, Budget, Recorder, machine, versions
from windeye.report.code import PACKAGE, digest
from windeye.train.threads import one_thread

Part = Literal["recall", "language", "throughput"]
PARTS: tuple[Part, ...] = get_args(Part)

Result = dict[str, Any]
"""Plain data: ``arms`` in words; in ``parts`` the numbers of each part that was run, with plan, machine and command."""

HEADS = 4
"""In the language models; recall has one head, as its benchmark has."""


@dataclass(frozen=True)
class Plan:
    """What a budget takes."""

    recall: RecallPlan
    language: LanguagePlan
    throughput: ThroughputPlan
    seeds: int


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        RecallPlan(MQAR(32, 16, 2, 1.0, "zero"), 16, steps=2, batch_size=4, rates=(1e-3, 1e-2), held_out=8, every=1),
        LanguagePlan("pydoc", 16, 16, 16, steps=2, batch_size=4, held_out=8, every=1),
        ThroughputPlan((16, 32), 16, rounds=1, decoded=2),
        seeds=1,
    ),
    "default": Plan(RecallPlan(), LanguagePlan(), ThroughputPlan(), seeds=3),
    "full": Plan(
        RecallPlan(MQAR(256, 128, 16, 1.0, "zero"), steps=4000, batch_size=128, held_out=1024),
        LanguagePlan("gcide", 512, 256, 512, steps=4000, batch_size=32, held_out=1024),
        ThroughputPlan(rounds=7, most_seconds=60.0),
        seeds=5,
    ),
}


@dataclass(frozen=True)
class Work:
    """What one part of the comparison is given."""

    arms: tuple[Arm, ...]
    plan: Plan
    seeds: tuple[int, ...]
    device: str
    recorder: Recorder
    progress: Callable[[str, float], None]

    def pieces(self, per_arm: float) -> Pieces:
        """The work of a part, by what it takes per arm."""
        return Pieces(self.recorder, self.progress, per_arm * len(self.arms))


def sequence(
    arms: Sequence[str] | None = None,
    parts: Sequence[str] = PARTS,
    *,
    budget: Budget = "default",
    seeds: int | None = None,
    device: str = "cpu",
    folder: Path | None = None,
    command: str = "",
    progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> Result:
    """Run parts of the comparison on one thread.

    Args:
        arms: names of `windeye.compare.ARMS`, None for all; softmax attention is always among the rows.
        parts: of `PARTS`.
        budget: "smoke" takes seconds and proves the machinery, "default" minutes, "full" hours.
        seeds: how many; default the budget's.
        device: where it is trained and timed.
        folder: where finished pieces are kept; the same settings, versions and code read them back.
        command: what repeats the run.
        progress: called with what is being done and the share that is done.

    Raises:
        ValueError, TypeError: an unknown arm, part or budget, or no part or seed; says what there is.
        windeye.data.AssetUnavailable: the text is not here and cannot be fetched.

    Example:
        >>> result = sequence(["window"], ["throughput"], budget="smoke")
        >>> result["arms"]["window"], list(result["parts"])
        ('softmax attention over the last 32 tokens', ['throughput'])
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}; known are {', '.join(PARTS)}")
    if not parts:
        raise ValueError(f"parts must name at least one of {', '.join(PARTS)}")
    plan, chosen = PLANS[budget], selected(arms)
    if seeds is not None:
        check_integer("seeds", seeds, 1)
    numbers = tuple(range(plan.seeds if seeds is None else seeds))
    wanted = [part for part in PARTS if part in parts]
    result: Result = {"comparison": "sequence", "arms": {arm.name: arm.words for arm in chosen}, "parts": {}}
    with one_thread():
        for done, part in enumerate(wanted):
            settings = asdict(getattr(plan, part))

            def tell(name: str, share: float, done: int = done) -> None:
                progress(name, (done + share) / len(wanted))

            record = None if folder is None else folder / "parts.jsonl"
            recorder = Recorder(record, _conditions(settings, device))
            result["parts"][part] = {
                "results": _DO[part](Work(chosen, plan, numbers, device, recorder, tell)),
                "budget": budget,
                "seeds": list(numbers),
                "plan": settings,
                "date": datetime.date.today().isoformat(),
                "command": command,
                "machine": machine(),
                "versions": versions(),
            }
    return result


def _conditions(settings: Result, device: str) -> Result:
    """Under which finished pieces are kept."""
    code = digest(sorted(path for folder in ("compare", "kernels") for path in (PACKAGE / folder).rglob("*.py")))
    return {**settings, "device": device, "versions": versions(), "code": code}


def _recall(work: Work) -> Result:
    plan = work.plan.recall
    pieces = work.pieces(cost(plan, len(work.seeds)))
    return {arm.name: recall(arm.name, arm.mixers(1), plan, work.seeds, work.device, pieces) for arm in work.arms}


def _language(work: Work) -> Result:
    pieces = work.pieces(len(work.seeds))
    return {
        arm.name: [
            pieces.do(
                f"language: {arm.name}, seed {seed}",
                partial(train_language, arm.mixers(HEADS), work.plan.language, seed, work.device),
            )
            for seed in work.seeds
        ]
        for arm in work.arms
    }


def _throughput(work: Work) -> Result:
    """Of each kind of work and arm the seconds at each length; arms take turns, so they are measured together."""
    lengths = work.plan.throughput.lengths
    pieces = work.pieces(len(WORKS) * sum(lengths) / len(work.arms))
    names = ", ".join(arm.name for arm in work.arms)
    found: dict[str, dict[str, list[float | None]]] = {}
    for kind in WORKS:
        before: list[Seconds] = []
        for length in lengths:
            measure = partial(seconds, work.arms, kind, length, work.plan.throughput, tuple(before), work.device)
            before.append(pieces.do(f"{kind} at {length} tokens: {names}", measure, length))
        found[kind] = {arm.name: [taken[arm.name] for taken in before] for arm in work.arms}
    return found


_DO: dict[Part, Callable[[Work], Result]] = {"recall": _recall, "language": _language, "throughput": _throughput}
