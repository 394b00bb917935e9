"""Training one arm, what it recalls from how far, and which tokens it still holds when the last query comes."""

from __future__ import annotations

import time
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from windeye.compare.sequence.recall import Asked, accuracy, asked
from windeye.compare.training import PILOT, Choice, Point, check_seed, chosen, trained
from windeye.data.sequences import IGNORED, Sequences
from windeye.memory import TopwCache
from windeye.models import DecoderLM
from windeye.papers.dma.arms import Arm
from windeye.papers.dma.plan import Plan
from windeye.report import Tell

BINS = 8
"""Into which the distances between a query and its value are put, the farthest of them the length of a sequence."""


class Outcome(TypedDict):
    """What one arm and seed leave behind.

    ``hits`` and ``asked`` count queries by their distance from the value; ``kept`` is for each place of a sequence the
    share of held-out sequences whose cache holds its token at the last query, None where there is no such cache, and
    ``chance`` what a blind choice would hold.
    """

    accuracy: float
    steps: int
    diverged: bool
    factor: list[float]
    state_bytes: int
    hits: list[int]
    asked: list[int]
    kept: list[float] | None
    chance: float
    seconds: float
    history: list[Point]


def choose_rate(arm: Arm, plan: Plan, device: str, tell: Tell) -> Choice:
    """The plan's rate that suits an arm best, as `windeye.compare.sequence.choose_rate` chooses it."""

    def run(rate: float, tell: Tell) -> tuple[float, int]:
        _, points, _ = _trained(arm, plan, PILOT, rate, device, tell)
        return points[-1]["score"], points[-1]["step"]

    return chosen(plan.recall.rates, run, tell)


def train(arm: Arm, plan: Plan, seed: int, rate: float, device: str, tell: Tell) -> Outcome:
    """Train one arm as `windeye.compare.sequence.train_recall` does, and look at the trained model.

    Raises:
        ValueError: a seed below 0, on which rates are chosen.
    """
    check_seed(seed)
    began = time.process_time()
    model, points, diverged = _trained(arm, plan, seed, rate, device, tell)
    task, held_out = plan.recall.task, plan.recall.held_out_examples(seed)
    examples = Sequences(held_out.tokens.to(device), held_out.targets.to(device))
    hits, queries = by_distance(model, examples, task.pairs)
    last = last_query(examples)
    return Outcome(
        accuracy=points[-1]["score"],
        steps=points[-1]["step"],
        diverged=diverged,
        factor=[a for name, tensor in model.state_dict().items() if name.endswith(".A") for a in tensor.tolist()],
        state_bytes=model.state_bytes(task.length),
        hits=hits,
        asked=queries,
        kept=kept(model, examples),
        chance=(plan.keep / (last + 1.0)).clamp(max=1.0).mean().item(),
        seconds=time.process_time() - began,
        history=points,
    )


def _trained(
    arm: Arm, plan: Plan, seed: int, rate: float, device: str, tell: Tell
) -> tuple[DecoderLM, list[Point], bool]:
    recall = plan.recall
    model = recall.model((arm.mixer(plan.keep),), seed).to(device)
    batches = recall.batches(seed)
    points, diverged = trained(
        Asked(model, recall.task.length), lambda step: asked(batches(step)), steps=recall.steps, every=recall.every,
        rate=rate, enough=recall.enough, tell=tell,
        score=partial(accuracy, examples=asked(recall.held_out_examples(seed))),
    )  # fmt: skip
    return model, points, diverged


def last_query(examples: Sequences) -> Tensor:
    """Where the last query of each sequence stands."""
    places = torch.arange(examples.targets.shape[1], device=examples.targets.device)
    return torch.where(examples.targets != IGNORED, places, -1).amax(dim=1)


@torch.no_grad()
def by_distance(model: DecoderLM, examples: Sequences, pairs: int) -> tuple[list[int], list[int]]:
    """Right answers, and queries, by how far behind the value the query stands.

    Example:
        >>> from windeye.papers.dma.arms import ARMS
        >>> from windeye.papers.dma.plan import PLANS
        >>> recall = PLANS["smoke"].recall
        >>> sum(by_distance(recall.model((ARMS[0].mixer(4),), 0), recall.held_out_examples(0), pairs=2)[1])
        16
    """
    row, query = (examples.targets != IGNORED).nonzero(as_tuple=True)
    named = model(examples.tokens)[row, query].argmax(dim=-1)
    pair = (examples.tokens[row, : 2 * pairs : 2] == examples.tokens[row, query][:, None]).int().argmax(dim=1)
    place = (query - (2 * pair + 1)) * BINS // examples.tokens.shape[1]
    hits = torch.bincount(place[named == examples.targets[row, query]], minlength=BINS)
    return hits.tolist(), torch.bincount(place, minlength=BINS).tolist()


@torch.no_grad()
def kept(model: DecoderLM, examples: Sequences) -> list[float] | None:
    """For each place, the share of sequences whose cache holds its token after the last query; of all heads."""
    _, state = model.hidden(examples.tokens, lengths=last_query(examples) + 1)
    cache = state.layers[-1]
    if not isinstance(cache, TopwCache):
        return None
    found = cache.position[cache.position >= 0]
    sequences, _, heads = cache.position.shape
    return (torch.bincount(found, minlength=examples.tokens.shape[1]) / (sequences * heads)).tolist()
