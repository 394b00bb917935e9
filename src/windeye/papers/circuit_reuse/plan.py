"""How large the parts of the experiment are."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.data.tasks import PairLists
from windeye.papers.experiment import Budget

TASK = PairLists(keys=6, values=23, lists=3)


@dataclass(frozen=True)
class Toy:
    """A small decoder that learns to look up keys.

    Args:
        task: what it learns.
        layers, heads, dim, glu_dim: of the decoder.
        init_std: of its initial weights; the usual 0.02 stays longer where nothing is looked up.
        steps, batch_size, rate: of its training, which ends at ``enough``.
        attempts: trainings that are begun, from other weights each, until one reaches ``enough``.
        every: steps between evaluations.
        half: accuracy at which a copy of the half-trained model is kept.
        held_out: sequences that accuracy is taken on.
        prompts: pairs of clean and corrupted prompts that effects are taken on.
    """

    task: PairLists = TASK
    layers: int = 4
    heads: int = 4
    dim: int = 64
    glu_dim: int = 128
    init_std: float = 0.1
    steps: int = 600
    attempts: int = 4
    batch_size: int = 32
    rate: float = 3e-3
    enough: float = 0.999
    every: int = 20
    half: float = 0.3
    held_out: int = 256
    prompts: int = 256


@dataclass(frozen=True)
class Real:
    """A pretrained model on both tasks.

    Args:
        model: an asset.
        prompts: of each task, for effects on the logits and for accuracies.
        fewer: of each task, for effects on queries, which cost a run per sender.
        share: of all heads that count as important, per stage.
        movers: heads whose queries receive.
        inhibitors: senders into them that are edited, with one head that speaks against the answer.
        draws: of random heads that are edited instead.
        permutations: for chance levels.
    """

    model: str = "smollm2-135m-instruct"
    prompts: int = 60
    fewer: int = 12
    share: float = 0.02
    movers: int = 3
    inhibitors: int = 3
    draws: int = 10
    permutations: int = 10_000


@dataclass(frozen=True)
class Speed:
    """A GPT-2 with random weights, whose effects are computed both ways.

    Args:
        layers, heads, dim: of the model.
        prompts: Colored Objects prompts of 62 tokens.
        vocab_size: more than the ids of the prompts.
        timed: heads, spread over the layers, for which the reference is timed.
    """

    layers: int = 12
    heads: int = 12
    dim: int = 192
    prompts: int = 100
    vocab_size: int = 256
    timed: int = 6


@dataclass(frozen=True)
class Plan:
    """All of it; a part that is None is left out."""

    toy: Toy
    real: Real | None
    speed: Speed | None


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        Toy(
            PairLists(3, 5, 2),
            layers=2,
            dim=16,
            glu_dim=16,
            steps=3,
            attempts=2,
            every=1,
            half=0.0,
            held_out=8,
            prompts=8,
        ),
        real=None,
        speed=Speed(layers=2, heads=2, dim=16, prompts=3, timed=2),
    ),
    "default": Plan(Toy(), Real(), Speed()),
    "full": Plan(Toy(prompts=1000), Real(prompts=1000, fewer=200, draws=20), Speed(24, 16, 1024)),
}
