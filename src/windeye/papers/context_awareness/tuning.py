"""A decoder that learns to read and to remember, is then tuned in several ways, and what it still reads."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Literal, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.data.sequences import Sequences, derived_seed
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM, generate
from windeye.ops import SpanMass
from windeye.papers.context_awareness.dialogues import KINDS, Dialogues, Kind, World
from windeye.papers.context_awareness.plan import ALPHAS, BEFORE, BETA, LAYER, TUNING, Toy
from windeye.report import Tell
from windeye.sites import steer, watch
from windeye.sites.context import Reduce, dependency, emphasis
from windeye.train import AdamW, Cosine, fit

Arm = Literal["vanilla", "marked", "marked by score", "marked at random"]
ARMS: tuple[Arm, ...] = ("vanilla", "marked", "marked by score", "marked at random")
"""What is marked in tuning: nothing; dialogues whose answer is the passage; as many with the highest scores; as many at
random."""

Span = Literal["passage", "user turn", "rest"]
SPANS: tuple[Span, ...] = ("passage", "user turn", "rest")
STEERED: dict[Arm, tuple[Span, ...]] = {"vanilla": SPANS, "marked": ("passage",), "marked at random": ("passage",)}
"""Which arms are steered, and to what."""
REDUCES: tuple[Reduce, ...] = ("mean", "max")

Marks = Callable[[Dialogues, int], Bool[Tensor, " n"] | None]
"""Which of the dialogues of a step are marked."""


class Reading(TypedDict):
    """Shares of symbols that are the passage's, or the memorised ones where the passage is about somebody else."""

    passage: float
    passage_marked: float
    memory: float
    memory_marked: float


class Steered(TypedDict):
    """The same without indicator, with attention steered to a span."""

    span: str
    alpha: float
    passage: float
    memory: float


class Separation(TypedDict):
    """How well the score of an answer tells ``passage`` from another kind in one layer."""

    span: str
    reduce: str
    layer: int
    against: str
    auroc: float
    means: list[float]


class Outcome(TypedDict):
    """What one seed leaves behind."""

    before: Reading
    arms: dict[str, Reading]
    steering: dict[str, list[Steered]]
    separations: list[Separation]
    marks: dict[str, float]
    """By the threshold of the arm and by the paper's: the share of dialogues that are marked, of the marked ones that
    answer from the passage, and of those that do the share that is marked."""
    seconds: float


def train(toy: Toy, seed: int, device: str, tell: Tell) -> Outcome:
    """Train the model, tune it in every arm, and look at what it reads."""
    began = time.process_time()
    world = World(seed=seed)
    total = toy.steps + len(ARMS) * toy.tuning_steps
    done = 0

    def part(steps: int) -> Tell:
        return lambda fraction: tell((done + fraction * steps) / total)

    model = learned(toy, world, seed, device, part(toy.steps))
    done += toy.steps
    before = reading(model, world, toy)
    steering: dict[str, list[Steered]] = {}
    arms: dict[str, Reading] = {}
    for arm in ARMS:
        tuned = tune(model, arm, toy, world, seed, part(toy.tuning_steps))
        done += toy.tuning_steps
        arms[arm] = reading(tuned, world, toy)
        if arm in STEERED:
            steering[arm] = [steered(tuned, world, toy, span, alpha) for span in STEERED[arm] for alpha in ALPHAS]
    return Outcome(
        before=before,
        arms=arms,
        steering=steering,
        separations=separations(model, world, toy),
        marks=precision(model, world, toy),
        seconds=time.process_time() - began,
    )


def learned(toy: Toy, world: World, seed: int, device: str, tell: Tell) -> DecoderLM:
    """The model before tuning: it answers from the passage where that is about the entity, else from memory."""
    config = DecoderConfig(
        world.vocabulary, toy.dim, (AttentionSpec(toy.heads),) * toy.layers, glu_dim=toy.glu_dim, init_std=toy.init_std
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        model = DecoderLM(config).to(device)
    batches = _batches(world, toy, BEFORE, derived_seed("before", seed), lambda *_: None)
    _fit(model, batches, toy.steps, toy.rate, tell)
    return model


def tune(model: DecoderLM, arm: Arm, toy: Toy, world: World, seed: int, tell: Tell) -> DecoderLM:
    """The model after tuning. All arms see the same dialogues in the same order."""
    beta = threshold(model, world, toy) if arm == "marked by score" else BETA
    marks: dict[Arm, Marks] = {
        "vanilla": lambda *_: None,
        "marked": lambda said, _: said.kind == KINDS.index("passage"),
        "marked by score": lambda said, _: scores(model, world, said)["passage", "max", LAYER] > beta,
        "marked at random": lambda said, step: _chosen(len(said.kind), derived_seed("marks", seed, step)),
    }
    tuned = copy.deepcopy(model)
    batches = _batches(world, toy, TUNING, derived_seed("tuning", seed), marks[arm])
    _fit(tuned, batches, toy.tuning_steps, toy.tuning_rate, tell)
    return tuned


def _chosen(n: int, seed: int) -> Bool[Tensor, " n"]:
    """As many as there are answers from the passage, in the mean."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < TUNING[0]


def _batches(
    world: World, toy: Toy, shares: tuple[float, float, float], seed: int, marks: Marks
) -> Callable[[int], Sequences]:
    def batch(step: int) -> Sequences:
        said = world.draw(toy.batch_size, shares, seed=derived_seed(seed, step))
        return world.write(said, marks(said, step))

    return batch


def _fit(model: nn.Module, batches: Callable[[int], Sequences], steps: int, rate: float, tell: Tell) -> None:
    fit(
        model, batches, steps=steps, optimiser=AdamW(rate=rate), schedule=Cosine(warm_up=max(1, steps // 20)),
        progress=tell,
    )  # fmt: skip


def held_out(world: World, toy: Toy, kind: Kind) -> Dialogues:
    """Dialogues of one kind that no training sees."""
    shares = tuple(float(kind == other) for other in KINDS)
    return world.draw(toy.held_out, shares, seed=KINDS.index(kind), split="test")  # type: ignore[arg-type]


def reading(model: DecoderLM, world: World, toy: Toy) -> Reading:
    """What a model answers with and without the indicator."""
    return Reading(
        passage=recall(model, world, held_out(world, toy, "passage")),
        passage_marked=recall(model, world, held_out(world, toy, "passage"), marked=True),
        memory=recall(model, world, held_out(world, toy, "memory")),
        memory_marked=recall(model, world, held_out(world, toy, "memory"), marked=True),
    )


def recall(model: DecoderLM, world: World, said: Dialogues, *, marked: bool = False) -> float:
    """The share of symbols that greedy answers have right."""
    prompts = world.prompts(said, marked=marked).to(device_of(model))
    return (generate(model, prompts, world.size).cpu() == said.answer).double().mean().item()


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def steered(model: DecoderLM, world: World, toy: Toy, span: Span, alpha: float) -> Steered:
    """What a model answers while it is steered to a part of the prompt."""
    with steer(model, [emphasis(span_of(world, span), alpha)]):
        return Steered(
            span=span,
            alpha=alpha,
            passage=recall(model, world, held_out(world, toy, "passage")),
            memory=recall(model, world, held_out(world, toy, "memory")),
        )


def span_of(world: World, span: Span, tokens: int | None = None) -> Bool[Tensor, "1 tokens"]:
    """A part of the dialogues as a mask over the prompt, or over so many tokens: "rest" is the prompt without the
    passage."""
    tokens = 5 + world.size if tokens is None else tokens
    if span == "user turn":
        return world.user_span(tokens)
    passage = world.passage_span(tokens)
    return passage if span == "passage" else ~passage & (torch.arange(tokens) < 5 + world.size)


@torch.no_grad()
def scores(model: DecoderLM, world: World, said: Dialogues) -> dict[tuple[Span, Reduce, int], Float[Tensor, " n"]]:
    """How much each answer depends on the passage and on the user's turn, by layer."""
    tokens = world.write(said).tokens.to(device_of(model))
    names: tuple[Span, ...] = ("passage", "user turn")
    masks = torch.stack([span_of(world, name, tokens.shape[1]) for name in names], dim=1).to(tokens.device)
    answers = world.answer_span(tokens.shape[1])[:, None].expand(len(tokens), -1, -1).to(tokens.device)
    with watch(model, {"spans": SpanMass(masks)}) as seen:
        model(tokens)
    return {
        (name, reduce, layer): dependency(seen["spans", layer][..., number], answers, reduce)[:, 0].cpu()
        for number, name in enumerate(names)
        for reduce in REDUCES
        for layer in range(len(model.blocks))
    }


def separations(model: DecoderLM, world: World, toy: Toy) -> list[Separation]:
    """How well scores tell answers from the passage from the others, before tuning."""
    found = {kind: scores(model, world, held_out(world, toy, kind)) for kind in KINDS}
    return [
        Separation(
            span=span,
            reduce=reduce,
            layer=layer,
            against=other,
            auroc=auroc(own, found[other][span, reduce, layer]),
            means=[own.mean().item(), found[other][span, reduce, layer].mean().item()],
        )
        for (span, reduce, layer), own in found["passage"].items()
        for other in KINDS[1:]
    ]


def auroc(higher: Float[Tensor, " a"], lower: Float[Tensor, " b"]) -> float:
    """The chance that one of the first is above one of the second; equal ones count half.

    Example:
        >>> auroc(torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.1]))
        0.875
    """
    above, equal = higher[:, None] > lower, higher[:, None] == lower
    return (above.double() + equal.double() / 2).mean().item()


def threshold(model: DecoderLM, world: World, toy: Toy) -> float:
    """The score above which as many dialogues of tuning lie as answer from the passage."""
    said = world.draw(10 * toy.held_out, TUNING, seed=8, split="test")
    return scores(model, world, said)["passage", "max", LAYER].quantile(1 - TUNING[0]).item()


def precision(model: DecoderLM, world: World, toy: Toy) -> dict[str, float]:
    """What is marked by score of dialogues as in tuning, others than those that the threshold was taken from."""
    said = world.draw(10 * toy.held_out, TUNING, seed=9, split="test")
    found = scores(model, world, said)["passage", "max", LAYER]
    right = said.kind == KINDS.index("passage")
    marks: dict[str, float] = {}
    for name, beta in (("", threshold(model, world, toy)), (f", beta {BETA:g}", BETA)):
        marked = found > beta
        both = float((marked & right).sum())
        marks |= {
            f"threshold{name}": beta,
            f"marked{name}": marked.double().mean().item(),
            f"precision{name}": both / max(1.0, float(marked.sum())),
            f"recall{name}": both / max(1.0, float(right.sum())),
        }
    return marks
