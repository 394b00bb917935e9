"""Training one arm: fixed batches, a fixed rule for the rate, and an end when it is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypedDict

from torch import nn

from windeye.data.sequences import BatchSource
from windeye.ops import MemoryDiverged
from windeye.report import Tell
from windeye.train import AdamW, Cosine, NonFinite, Row, fit

PILOT = -1
"""The seed on which rates are chosen. Nothing is reported of it."""


class Point(TypedDict):
    """One evaluation: after how many steps, the loss of that step's batch, and the score."""

    step: int
    loss: float
    score: float


class Choice(TypedDict):
    """The rate that was chosen, with the score of every rate that was tried, in their order."""

    rate: float
    rates: list[float]
    scores: list[float]
    steps: list[int]
    seconds: float


def check_seed(seed: int) -> None:
    """Refuse the seed of the pilot, and what lies below."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}; {PILOT} is where rates are chosen")


def trained(
    model: nn.Module,
    batches: BatchSource,
    *,
    steps: int,
    every: int,
    rate: float,
    score: Callable[[nn.Module], float],
    enough: float | None,
    tell: Tell,
    nothing: float = 0.0,
) -> tuple[list[Point], bool]:
    """Train a model in place; its evaluations, and whether it diverged.

    AdamW with a warm-up over a twentieth of the steps and a cosine. Ends early once ``score`` is at least ``enough``.
    A loss, gradient or memory that is not finite ends the training with the weights from before it: the last evaluation
    is theirs, or ``nothing``, the score of knowing nothing, if their memory is not finite there either.
    """
    noted: list[Row] = []

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        return {"score": score(module)}

    def until(row: Row) -> bool:
        noted.append(row)
        return enough is not None and row["score"] >= enough

    schedule = Cosine(warm_up=max(1, steps // 20))
    try:
        rows = fit(
            model, batches, steps=steps, optimiser=AdamW(rate=rate), schedule=schedule, evaluate=evaluate, every=every,
            until=until, progress=tell,
        )  # fmt: skip
    except (NonFinite, MemoryDiverged):
        last = _point(noted[-1]) if noted else Point(step=0, loss=float("inf"), score=nothing)
        try:
            last["score"] = score(model)
        except MemoryDiverged:
            last["score"] = nothing
        return [*map(_point, noted), last], True
    return [_point(row) for row in rows if "score" in row], False


def _point(row: Row) -> Point:
    return Point(step=int(row["step"]), loss=row["loss"], score=row["score"])


def chosen(rates: tuple[float, ...], run: Callable[[float, Tell], tuple[float, int]], tell: Tell) -> Choice:
    """The best of several rates: the highest score, of equal ones the fewest steps, of equal ones the smallest rate.

    ``run(rate, tell)`` trains on the pilot's seed and gives a score (higher is better) and the steps it took. A rate
    alone is taken untried.

    Example:
        >>> found = chosen((0.1, 0.2, 0.3), lambda rate, tell: (min(rate, 0.2), 5), tell=print)
        >>> found["rate"], found["scores"]
        (0.2, [0.1, 0.2, 0.2])
    """
    began = time.process_time()
    if len(rates) == 1:
        return Choice(rate=rates[0], rates=list(rates), scores=[], steps=[], seconds=0.0)
    found = [
        run(rate, lambda share, done=done: tell((done + share) / len(rates)))  # type: ignore[misc]
        for done, rate in enumerate(rates)
    ]
    best = max(range(len(rates)), key=lambda i: (found[i][0], -found[i][1], -rates[i]))
    return Choice(
        rate=rates[best],
        rates=list(rates),
        scores=[score for score, _ in found],
        steps=[steps for _, steps in found],
        seconds=time.process_time() - began,
    )
