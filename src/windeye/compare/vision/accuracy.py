"""One arm and seed: trained like all others, tested, and weighed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from windeye.compare.training import PILOT, Choice, check_seed, chosen, trained
from windeye.compare.vision.arms import Arm
from windeye.compare.vision.images import Images, Labelled, scaled
from windeye.compare.vision.skeleton import Skeleton
from windeye.data.sequences import check_integer
from windeye.models.vision import cost, save_backbone
from windeye.report import Tell, silent
from windeye.train import score


@dataclass(frozen=True)
class AccuracyPlan:
    """What every arm is trained on and for how long.

    Args:
        skeleton: of all arms.
        data: a name of `windeye.compare.vision.images.NAMED`, or the path of a folder.
        steps, batch_size: of training.
        rates: peak learning rates; of several each arm takes the one that is best on the pilot's seed. Of 3e-3, 6e-3
            and 1e-2 the default was best for full attention after 140 steps on Fashion-MNIST, on a seed and on pictures
            that are not reported.
        every: steps between looks at the first ``watched`` test pictures; the whole test comes at the end.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    skeleton: Skeleton = field(default_factory=Skeleton)
    data: str = "fashion-mnist"
    steps: int = 400
    batch_size: int = 32
    rates: tuple[float, ...] = (6e-3,)
    every: int = 50
    watched: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every", "watched"):
            check_integer(name, getattr(self, name), 1)
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"rates must name at least one learning rate above 0, got {self.rates}")
        if len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates must differ, got {self.rates}")


class Look(TypedDict):
    """The test pictures that are watched, after so many steps and seconds of training."""

    step: int
    loss: float
    accuracy: float
    seconds: float


class Outcome(TypedDict):
    """What one arm and seed leave behind.

    ``accuracy`` is that on all test pictures; ``seconds`` are of training alone, of the processor, which a busy machine
    hardly stretches, or by the clock on a GPU.
    """

    accuracy: float
    steps: int
    diverged: bool
    seconds: float
    history: list[Look]


class Weight(TypedDict):
    """What an arm costs per picture: see `windeye.models.vision.Cost`."""

    parameters: int
    multiply_adds: int
    attention: int
    pairs: int


def train_arm(
    arm: Arm,
    images: Images,
    plan: AccuracyPlan,
    seed: int,
    save_to: Path | None = None,
    device: str = "cpu",
    tell: Tell = silent,
    *,
    rate: float,
) -> Outcome:
    """Train an arm and test it.

    Args:
        arm: what is put into the skeleton.
        images: what it is trained on and tested with.
        plan: what everything else is.
        seed: of the order of pictures and the initial weights: equal seeds pair the arms. At least 0.
        save_to: a file for the trained model.
        device: where it is trained.
        tell: called with the share that is done.
        rate: peak learning rate, as `choose_rate` finds it.

    Raises:
        ValueError: a seed below 0.

    Example:
        >>> from windeye.compare.vision.arms import arms
        >>> images = Images("two", ("dark", "light"), *[Labelled(torch.tensor([0, 255]).byte().reshape(2, 1, 1, 1)
        ...                 .expand(2, 1, 16, 16), torch.tensor([0, 1]))] * 2)
        >>> plan = AccuracyPlan(Skeleton(16, dims=(8, 8), heads=(1, 1)), steps=30, batch_size=2, every=30)
        >>> train_arm(arms()["window"], images, plan, seed=0, rate=6e-3)["accuracy"]
        1.0
    """
    check_seed(seed)
    model = plan.skeleton.build(arm, seed, in_chans=images.channels, classes=len(images.classes)).to(device)
    watched = Labelled(images.test.images[: plan.watched], images.test.labels[: plan.watched])
    now = time.process_time if torch.device(device).type == "cpu" else time.perf_counter
    began, looks = now(), []

    def look(module: nn.Module) -> float:
        nonlocal began
        stopped = now()
        found = accuracy(module, watched)
        looks.append(stopped - began)
        began += now() - stopped  # looking is no training
        return found

    points, diverged = trained(
        model, images.batches(plan.batch_size, seed), steps=plan.steps, every=plan.every, rate=rate, score=look,
        enough=None, tell=tell,
    )  # fmt: skip
    history = [
        Look(step=point["step"], loss=point["loss"], accuracy=point["score"], seconds=seconds)
        for point, seconds in zip(points, looks, strict=True)
    ]
    if save_to is not None:
        save_backbone(model, save_to)
    return Outcome(
        accuracy=accuracy(model, images.test),
        steps=points[-1]["step"],
        diverged=diverged,
        seconds=looks[-1],
        history=history,
    )


def choose_rate(arm: Arm, images: Images, plan: AccuracyPlan, device: str = "cpu", tell: Tell = silent) -> Choice:
    """The plan's rate that suits an arm best: trained in full with each, on a seed that is not reported.

    What is scored are training pictures that were held out; the pictures of the test are not seen.
    """
    pilot = images.pilot()

    def run(rate: float, tell: Tell) -> tuple[float, int]:
        model = plan.skeleton.build(arm, PILOT, in_chans=images.channels, classes=len(images.classes)).to(device)
        points, _ = trained(
            model, pilot.batches(plan.batch_size, PILOT), steps=plan.steps, every=plan.steps, rate=rate,
            score=lambda module: accuracy(module, pilot.test), enough=None, tell=tell,
        )  # fmt: skip
        return points[-1]["score"], points[-1]["step"]

    return chosen(plan.rates, run, tell)


def accuracy(model: nn.Module, examples: Labelled, size: int = 250) -> float:
    """The share of pictures whose class the model names first."""

    def batches() -> list[tuple[Tensor, Tensor]]:
        split = zip(torch.split(examples.images, size), torch.split(examples.labels, size), strict=True)
        return [(scaled(images), labels) for images, labels in split]

    return score(model, batches())["accuracy"]


def weight(arm: Arm, images: Images, skeleton: Skeleton) -> Weight:
    """What an arm costs per picture."""
    found = cost(skeleton.build(arm, 0, in_chans=images.channels, classes=len(images.classes)))
    return Weight(
        parameters=found.parameters,
        multiply_adds=found.multiply_adds,
        attention=found.attention,
        pairs=found.pairs,
    )
