"""Associative recall: the same skeleton, examples and budget for every mixer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.compare.sequence.skeleton import decoder
from windeye.compare.training import PILOT, Choice, Point, check_seed, chosen, trained
from windeye.data.sequences import IGNORED, Fresh, Sequences, check_integer
from windeye.data.tasks import MQAR
from windeye.models import DecoderLM, MixerSpec
from windeye.report import Pieces, Tell, silent
from windeye.train import score

UNIFORM = MQAR(vocabulary=256, length=64, pairs=16, power=1.0, filler="zero")
"""Queries lie anywhere with equal chance and the rest is empty: what is measured is how much is remembered, and not how
soon it is asked for."""


@dataclass(frozen=True)
class RecallPlan:
    """What every arm is trained on and for how long.

    Args:
        task: the examples.
        dim: channels of the decoder, which has no channel mixers.
        init_std: of initial weights. The usual 0.02 stays much longer on the plateau where nothing is recalled.
        steps, batch_size: fresh examples in every step.
        rates: of which each arm takes the one that is best on the pilot's seed.
        held_out: examples that accuracy is taken on.
        every: steps between evaluations.
        enough: accuracy at which training ends; None trains to the end.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    task: MQAR = UNIFORM
    dim: int = 64
    init_std: float = 0.1
    steps: int = 800
    batch_size: int = 64
    rates: tuple[float, ...] = (3e-3, 1e-2)
    held_out: int = 256
    every: int = 100
    enough: float | None = 0.99

    def __post_init__(self) -> None:
        for name in ("dim", "steps", "batch_size", "held_out", "every"):
            check_integer(name, getattr(self, name), 1)
        if not self.rates:
            raise ValueError("rates must name at least one learning rate")

    def batches(self, seed: int) -> Fresh:
        """The training examples of a seed, the same for every arm."""
        return Fresh(self.task.sample, self.batch_size, seed=seed)

    def held_out_examples(self, seed: int) -> Sequences:
        """The examples of a seed that accuracy is taken on, which no step of training sees."""
        return self.task.sample(self.held_out, seed=seed, split="test")

    def within_reach(self, seed: int, window: int) -> float:
        """The share of held-out queries from which a window of so many keys shows a token that has met the value.

        Behind the convolution over three tokens the value stands in its own vector and in those of the next two, but
        only its own and the next have met the key, too.

        Example:
            >>> plan = RecallPlan(held_out=16)
            >>> plan.within_reach(0, 1000), plan.within_reach(0, 0)
            (1.0, 0.0)
        """
        tokens, targets = self.held_out_examples(seed)
        row, place = (targets != IGNORED).nonzero().unbind(1)
        written = tokens[:, : 2 * self.task.pairs : 2]
        key_place = 2 * (written[row] == tokens[row, place, None]).int().argmax(dim=1)
        return (place - (key_place + 2) < window).double().mean().item()

    def model(self, mixers: tuple[MixerSpec, ...], seed: int) -> DecoderLM:
        """The decoder of an arm before training."""
        return decoder(mixers, seed, vocab_size=self.task.vocabulary, dim=self.dim, init_std=self.init_std)


class RecallOutcome(TypedDict):
    """What one arm and seed leave behind.

    ``accuracy`` is that of the last evaluation, on held-out examples; ``state_bytes`` the memory of the past of one
    sequence, all blocks together; ``seconds`` are of the processor, which a busy machine does not stretch.
    """

    accuracy: float
    rate: float
    steps: int
    diverged: bool
    state_bytes: int
    parameters: int
    seconds: float
    history: list[Point]


def train_recall(
    mixers: tuple[MixerSpec, ...],
    plan: RecallPlan,
    seed: int,
    device: str = "cpu",
    tell: Tell = silent,
    *,
    rate: float,
) -> RecallOutcome:
    """Train one arm and score it on held-out examples.

    Args:
        mixers: the blocks behind the convolution, see `windeye.compare.sequence.skeleton.decoder`.
        plan: what everything else is.
        seed: of examples and initial weights: equal seeds pair the arms. At least 0.
        device: where it is trained.
        tell: called with the share that is done.
        rate: peak learning rate, as `choose_rate` finds it.

    Raises:
        ValueError: a seed below 0.

    Example:
        >>> from windeye.models import AttentionSpec
        >>> plan = RecallPlan(MQAR(32, 12, 2, filler="zero"), dim=16, steps=2, batch_size=4, held_out=8)
        >>> outcome = train_recall((AttentionSpec(heads=1),), plan, seed=0, rate=3e-3)
        >>> outcome["steps"], 0 <= outcome["accuracy"] <= 1
        (2, True)
    """
    check_seed(seed)
    return _train(mixers, plan, seed, device, tell, rate)


def choose_rate(mixers: tuple[MixerSpec, ...], plan: RecallPlan, device: str = "cpu", tell: Tell = silent) -> Choice:
    """The plan's rate that suits an arm best: trained in full with each of them, on a seed that is not reported."""

    def run(rate: float, tell: Tell) -> tuple[float, int]:
        outcome = _train(mixers, plan, PILOT, device, tell, rate)
        return outcome["accuracy"], outcome["steps"]

    return chosen(plan.rates, run, tell)


class ArmRecall(TypedDict):
    """The rate that an arm took, and its outcome with every seed."""

    choice: Choice
    runs: list[RecallOutcome]


def recall(
    name: str, mixers: tuple[MixerSpec, ...], plan: RecallPlan, seeds: tuple[int, ...], device: str, pieces: Pieces
) -> ArmRecall:
    """Choose the rate of an arm and train it with every seed, in pieces of weight `cost` together."""
    choice = pieces.do(f"recall: {name}, rate", partial(choose_rate, mixers, plan, device), len(plan.rates))
    runs = [
        pieces.do(
            f"recall: {name}, seed {seed}", partial(train_recall, mixers, plan, seed, device, rate=choice["rate"])
        )
        for seed in seeds
    ]
    return ArmRecall(choice=choice, runs=runs)


def cost(plan: RecallPlan, seeds: int) -> float:
    """What an arm takes, in trainings."""
    return len(plan.rates) + seeds


class Asked(nn.Module):
    """A decoder whose head is computed only where an answer is judged, which is a quarter of all places.

    Takes what `asked` gives: tokens, and behind them the places of the queries.
    """

    def __init__(self, decoder: DecoderLM, length: int) -> None:
        super().__init__()
        self.decoder, self.length = decoder, length

    def forward(self, tokens: Int[Tensor, "batch joined"]) -> Float[Tensor, "batch queries vocab"]:
        hidden, _ = self.decoder.hidden(tokens[:, : self.length])
        places = tokens[:, self.length :, None].expand(-1, -1, hidden.shape[-1])
        return self.decoder.logits(hidden.gather(1, places))


def asked(examples: Sequences) -> Sequences:
    """Tokens with the places of their queries behind them, and the value of each query; as many in every example.

    Example:
        >>> asked(Sequences(torch.tensor([[5, 6, 0, 5]]), torch.tensor([[-100, -100, -100, 6]])))
        Sequences(tokens=tensor([[5, 6, 0, 5, 3]]), targets=tensor([[6]]))
    """
    places = (examples.targets != IGNORED).nonzero()[:, 1].view(len(examples.tokens), -1)
    return Sequences(torch.cat((examples.tokens, places), dim=1), examples.targets.gather(1, places))


def accuracy(model: nn.Module, examples: Sequences) -> float:
    """The share of queries whose value the model names first."""
    return score(model, [examples])["accuracy"]


def _train(
    mixers: tuple[MixerSpec, ...], plan: RecallPlan, seed: int, device: str, tell: Tell, rate: float
) -> RecallOutcome:
    began = time.process_time()
    model, fresh = plan.model(mixers, seed).to(device), plan.batches(seed)
    points, diverged = trained(
        Asked(model, plan.task.length), lambda step: asked(fresh(step)), steps=plan.steps, every=plan.every, rate=rate,
        enough=plan.enough, tell=tell, score=partial(accuracy, examples=asked(plan.held_out_examples(seed))),
    )  # fmt: skip
    return RecallOutcome(
        accuracy=points[-1]["score"],
        rate=rate,
        steps=points[-1]["step"],
        diverged=diverged,
        state_bytes=model.state_bytes(plan.task.length),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=time.process_time() - began,
        history=points,
    )
