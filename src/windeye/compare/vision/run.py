"""Mixers of maps side by side: how accurate they become for what they cost, and how fast they are as maps grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from windeye.compare.parts import Asked, Part, Progress, Result, Work, check_asked, compared, seeds_of
from windeye.compare.vision.accuracy import AccuracyPlan, choose_rate, train_arm, weight
from windeye.compare.vision.arms import Arm, selected
from windeye.compare.vision.folder import listed
from windeye.compare.vision.images import NAMED, check_data, images_of
from windeye.compare.vision.memory import peaks
from windeye.compare.vision.skeleton import Skeleton
from windeye.compare.vision.speed import WORKS, Measured, SpeedPlan, seconds
from windeye.report import Budget

PARTS = ("accuracy", "speed")


@dataclass(frozen=True)
class Plan:
    """What a budget takes."""

    accuracy: AccuracyPlan
    speed: SpeedPlan
    seeds: int


SMALL = Skeleton(16, dims=(8, 8), heads=(2, 2))
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        AccuracyPlan(SMALL, steps=2, batch_size=4, every=1, watched=8), SpeedPlan(SMALL, (16, 24), 256, rounds=1), 1
    ),
    "default": Plan(AccuracyPlan(), SpeedPlan(), 3),
    "full": Plan(
        AccuracyPlan(Skeleton(dims=(64, 128), heads=(4, 8)), steps=9000, batch_size=128, rates=(2e-3,), every=450),
        SpeedPlan(Skeleton(dims=(64, 128), heads=(4, 8)), sides=(32, 64, 128, 256, 512), most_seconds=120.0),
        5,
    ),
}
SMOKE_TEST = 64
"""A smoke run tests with so many pictures."""


def run(
    mixers: Sequence[str] | None = None,
    parts: Sequence[str] = PARTS,
    *,
    data: str = "fashion-mnist",
    size: int | None = None,
    rates: Sequence[float] | None = None,
    steps: int | None = None,
    budget: Budget = "default",
    seeds: int | None = None,
    device: str = "cpu",
    folder: Path | None = None,
    command: str = "",
    progress: Progress = lambda _name, _share: None,
) -> Result:
    """Run parts of the comparison on one thread.

    Args:
        mixers: names of `windeye.compare.vision.arms`, None for all; full attention is always among the rows.
        parts: of `PARTS`. "accuracy" trains, "speed" times untrained networks: on the CPU, and on CUDA where there is
            one.
        data: "fashion-mnist", "made-scenes", or a folder with a folder of images per class.
        size: side of the images in pixels, default the plan's.
        rates: peak learning rates, default the plan's one for all. Of several each arm takes the one that is best on
            training pictures that are held out, on a seed that is not reported.
        steps: of training, default the plan's.
        budget: "smoke" takes seconds and proves the machinery, "default" most of an hour, "full" days or a GPU.
        seeds: how many; default the budget's.
        device: where it is trained.
        folder: where finished pieces are kept, and the model of each arm's first seed as ``models/ARM.safetensors``;
            the same settings, versions and code read pieces back.
        command: what repeats the run.
        progress: called with what is being done and the share that is done.

    Raises:
        ValueError, TypeError: an unknown mixer, part, budget, data or device, or no part, rate, step or seed; says what
            there is.
        windeye.data.AssetUnavailable: the pictures are not here and cannot be fetched.

    Example:
        >>> result = run(["none"], ["accuracy"], data="made-scenes", budget="smoke")
        >>> list(result["arms"]), result["parts"]["accuracy"]["results"]["data"]["classes"]
        (['full', 'none'], 6)
    """
    check_asked(parts, PARTS, budget)
    check_device(device)
    check_data(data)
    plan = PLANS[budget]
    trained = replace(plan.accuracy, data=data)
    if size is not None:
        trained = replace(trained, skeleton=replace(trained.skeleton, side=size))
    if rates is not None:
        trained = replace(trained, rates=tuple(rates))
    if steps is not None:
        trained = replace(trained, steps=steps)
    asked = Asked("vision", budget, seeds_of(seeds, plan.seeds), device, folder, command, progress)
    known = {"accuracy": Part(trained, _accuracy), "speed": Part(plan.speed, _speed)}
    return compared(
        asked, selected(mixers), {part: known[part] for part in PARTS if part in parts},
        {} if data in NAMED else {"files": listed(Path(data))},
    )  # fmt: skip


def check_device(device: str) -> None:
    """Refuse what torch does not know or this machine does not have."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device must be cpu or cuda, got {device!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, and torch finds no CUDA device here; cpu is always there")


def _accuracy(work: Work[Arm, AccuracyPlan]) -> Result:
    plan = work.plan
    images = images_of(plan.data, plan.skeleton.side)
    if plan.skeleton == SMALL:
        images = images.first(SMOKE_TEST)
    tried = len(plan.rates) if len(plan.rates) > 1 else 0
    pieces = work.pieces(len(work.arms) * (tried + len(work.seeds)))
    choices = {
        arm.name: pieces.do(f"accuracy: {arm.name}, rate", partial(choose_rate, arm, images, plan, work.device), tried)
        for arm in work.arms
    }
    runs: dict[str, list[Result]] = {arm.name: [] for arm in work.arms}
    # Seed by seed, so that a run that is stopped has something of every arm.
    for seed in work.seeds:
        for arm in work.arms:
            save_to = work.folder / "models" / f"{arm.name}.safetensors" if work.folder and seed == 0 else None
            rate = choices[arm.name]["rate"]
            train = partial(train_arm, arm, images, plan, seed, save_to, work.device, rate=rate)
            runs[arm.name].append(dict(pieces.do(f"accuracy: {arm.name}, seed {seed}", train)))
    found = {
        arm.name: {
            **weight(arm, images, plan.skeleton),
            "choice": choices[arm.name],
            "runs": runs[arm.name],
        }
        for arm in work.arms
    }
    return {"data": images.facts(), "arms": found}


def _speed(work: Work[Arm, SpeedPlan]) -> Result:
    """By device, kind of work and arm what was measured at each side; arms take turns, so they are timed together."""
    plan = work.plan
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    pieces = work.pieces(len(devices) * len(WORKS) * 2 * sum(plan.sides))
    names = ", ".join(arm.name for arm in work.arms)
    found: Result = {}
    for device in devices:
        for kind in WORKS:
            before: list[dict[str, float | None]] = []
            taken: list[dict[str, int | None]] = []
            for side in plan.sides:
                time = partial(seconds, work.arms, kind, side, plan, tuple(before), device)
                before.append(pieces.do(f"{device}, {kind} at {side} pixels: {names}", time, side))

                timed = tuple(arm for arm in work.arms if before[-1][arm.name] is not None)
                weigh = partial(peaks, timed, kind, side, plan, device)
                taken.append(pieces.do(f"{device}, memory of {kind} at {side} pixels: {names}", weigh, side))
            found.setdefault(device, {})[kind] = {
                arm.name: [Measured(seconds=s[arm.name], bytes=b[arm.name]) for s, b in zip(before, taken, strict=True)]
                for arm in work.arms
            }
    return found
