"""Sequence mixers side by side: what they recall from how much state, what they make of a text, how fast they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from windeye.compare.parts import Asked, Part, Progress, Result, Work, check_asked, compared, seeds_of
from windeye.compare.sequence.arms import Arm, selected
from windeye.compare.sequence.language import LanguagePlan, train_language
from windeye.compare.sequence.recall import RecallPlan, cost, recall
from windeye.compare.sequence.throughput import WORKS, Seconds, ThroughputPlan, seconds
from windeye.data.tasks import MQAR
from windeye.report import Budget

PARTS = ("recall", "language", "throughput")

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


def run(
    arms: Sequence[str] | None = None,
    parts: Sequence[str] = PARTS,
    *,
    budget: Budget = "default",
    seeds: int | None = None,
    device: str = "cpu",
    folder: Path | None = None,
    command: str = "",
    progress: Progress = lambda _name, _share: None,
) -> Result:
    """Run parts of the comparison on one thread.

    Args:
        arms: names of `windeye.compare.sequence.ARMS`, None for all; softmax attention is always among the rows.
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
        >>> result = run(["window"], ["throughput"], budget="smoke")
        >>> result["arms"]["window"], list(result["parts"])
        ('softmax attention over the last 32 tokens', ['throughput'])
    """
    check_asked(parts, PARTS, budget)
    plan = PLANS[budget]
    asked = Asked("sequence", budget, seeds_of(seeds, plan.seeds), device, folder, command, progress)
    known = {
        "recall": Part(plan.recall, _recall),
        "language": Part(plan.language, _language),
        "throughput": Part(plan.throughput, _throughput),
    }
    return compared(asked, selected(arms), {part: known[part] for part in PARTS if part in parts})


def _recall(work: Work[Arm, RecallPlan]) -> Result:
    plan = work.plan
    pieces = work.pieces(len(work.arms) * cost(plan, len(work.seeds)))
    return {arm.name: recall(arm.name, arm.mixers(1), plan, work.seeds, work.device, pieces) for arm in work.arms}


def _language(work: Work[Arm, LanguagePlan]) -> Result:
    pieces = work.pieces(len(work.arms) * len(work.seeds))
    return {
        arm.name: [
            pieces.do(
                f"language: {arm.name}, seed {seed}",
                partial(train_language, arm.mixers(HEADS), work.plan, seed, work.device),
            )
            for seed in work.seeds
        ]
        for arm in work.arms
    }


def _throughput(work: Work[Arm, ThroughputPlan]) -> Result:
    """Of each kind of work and arm the seconds at each length; arms take turns, so they are measured together."""
    lengths = work.plan.lengths
    pieces = work.pieces(len(WORKS) * sum(lengths))
    names = ", ".join(arm.name for arm in work.arms)
    found: dict[str, dict[str, list[float | None]]] = {}
    for kind in WORKS:
        before: list[Seconds] = []
        for length in lengths:
            measure = partial(seconds, work.arms, kind, length, work.plan, tuple(before), work.device)
            before.append(pieces.do(f"{kind} at {length} tokens: {names}", measure, length))
        found[kind] = {arm.name: [taken[arm.name] for taken in before] for arm in work.arms}
    return found
