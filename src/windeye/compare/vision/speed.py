"""How fast the skeleton is with each mixer as maps grow, and how much memory it takes: a training step, inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

import torch
from torch.nn import functional

from windeye.bench.timing import Candidate, compare
from windeye.compare.vision.arms import Arm
from windeye.compare.vision.skeleton import Skeleton
from windeye.data.sequences import check_integer
from windeye.report import Tell, silent

Work = Literal["training", "inference"]
WORKS: tuple[Work, ...] = get_args(Work)
"""Forward and backward; forward without gradients."""


@dataclass(frozen=True)
class SpeedPlan:
    """What is timed: the whole backbone, on square images.

    Args:
        skeleton: of all arms; its own side plays no part.
        sides: of the images, rising.
        pixels: in a batch, so that small images come in many.
        rounds: arms take turns so many times, and the median of an arm counts.
        most_seconds: an arm whose next point is expected to take longer is not measured there, nor beyond.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    skeleton: Skeleton = field(default_factory=Skeleton)
    sides: tuple[int, ...] = (32, 64, 128, 256)
    pixels: int = 128 * 128
    rounds: int = 5
    most_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in ("pixels", "rounds"):
            check_integer(name, getattr(self, name), 1)
        if not self.sides or list(self.sides) != sorted(set(self.sides)) or self.sides[0] < 4 * self.skeleton.patch:
            raise ValueError(
                f"sides must rise from at least four patches, {4 * self.skeleton.patch} pixels, got {self.sides}"
            )

    def batch(self, side: int) -> int:
        """How many images of this side are taken at a time.

        Example:
            >>> [SpeedPlan().batch(side) for side in (32, 128, 256)]
            [16, 1, 1]
        """
        return max(1, self.pixels // side**2)


class Measured(TypedDict):
    """Of one arm, kind of work and side: seconds per image, and the bytes that a batch takes at its peak beside weights
    and images; None where it was not measured."""

    seconds: float | None
    bytes: int | None


def seconds(
    chosen: Sequence[Arm], work: Work, side: int, plan: SpeedPlan, before: Sequence[dict[str, float | None]],
    device: str = "cpu", tell: Tell = silent,
) -> dict[str, float | None]:  # fmt: skip
    """Median seconds per image of every arm, arms taking turns.

    Args:
        chosen: what is timed.
        work: what is done.
        side: of the images.
        plan: sizes and limits.
        before: what was found at the smaller sides, in their order.
        device: where it is done.
        tell: called with 1 at the end.
    """
    batch = plan.batch(side)
    timed = [arm for arm in chosen if _expected(arm.name, side, plan, before) <= plan.most_seconds]
    candidates = {arm.name: candidate(arm, work, side, plan, device) for arm in timed}
    found = compare(candidates, baseline=timed[0].name, rounds=plan.rounds) if timed else {}
    tell(1.0)
    return {arm.name: found[arm.name].seconds / batch if arm.name in found else None for arm in chosen}


def _expected(name: str, side: int, plan: SpeedPlan, before: Sequence[dict[str, float | None]]) -> float:
    """Seconds that a batch will take, if every pair of tokens costs what it did."""
    if not before:
        return 0.0
    last, previous = before[-1][name], plan.sides[len(before) - 1]
    return float("inf") if last is None else last * (side / previous) ** 4 * plan.batch(side)


def candidate(arm: Arm, work: Work, side: int, plan: SpeedPlan, device: str = "cpu") -> Candidate:
    """What is timed: it returns once the device is done."""
    model = plan.skeleton.build(arm, 0, in_chans=3).to(device)
    random = torch.Generator().manual_seed(0)
    images = torch.randn(plan.batch(side), 3, side, side, generator=random).to(device)
    labels = torch.zeros(len(images), dtype=torch.long, device=device)
    done: Callable[[], None] = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    model.train(work == "training")

    def train() -> None:
        loss = functional.cross_entropy(model(images), labels)
        torch.autograd.grad(loss, list(model.parameters()))
        done()

    @torch.inference_mode()
    def infer() -> None:
        model(images)
        done()

    return train if work == "training" else infer
