"""The model that learns to plan and fill: lists of pairs first, so that looking up is learned at all."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor, nn

from windeye.data.sequences import Sequences, derived_seed
from windeye.data.tasks.plan_then_fill import Marked, Role
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.papers.preplan_anchor.plan import ToyPlan
from windeye.report import Tell
from windeye.train import AdamW, Cosine, Row, fit

Weights = dict[str, Tensor]


class Learned(TypedDict):
    """How far training came; ``half_step`` is where the half-trained policy was taken, -1 if it never came so far."""

    steps: int
    first: float
    inside: float
    half_step: int
    seconds: float


def untrained(plan: ToyPlan, seed: int) -> DecoderLM:
    """The model as a seed begins with it."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed("preplan-anchor", seed))
        # Looking up needs a head that finds the token before: a matter of places alone, for which projections need
        # biases and rotations need more than one fast angle in 16 channels.
        mixer = AttentionSpec(plan.heads, rotary_base=plan.rotary_base, bias=True)
        return DecoderLM(
            DecoderConfig(
                plan.task.vocabulary, plan.dim, (mixer,) * plan.layers, glu_dim=plan.glu_dim, norm="layer",
                scaled_init=True, init_std=plan.init_std,
            )
        )  # fmt: skip


def learn(plan: ToyPlan, seed: int, tell: Tell) -> tuple[DecoderLM, Weights, Learned]:
    """Train; the model, the weights of the half-trained one, and how it went."""
    began = time.process_time()
    model = untrained(plan, seed)
    held_out = plan.task.marked(64, seed=derived_seed("held out", seed), split="test")
    half: Weights = {}
    half_step = -1

    def batches(step: int) -> Sequences:
        draw = plan.task.pairs if step < plan.lists * plan.steps else plan.task.sample
        return draw(plan.batch_size, seed=derived_seed("toy", seed, step))

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        first, inside = accuracy(module, held_out)
        return {"first": first, "inside": inside}

    def until(row: Row) -> bool:
        nonlocal half, half_step
        if not half and min(row["first"], row["inside"]) >= plan.half:
            half, half_step = copy.deepcopy(model.state_dict()), int(row["step"])
        return min(row["first"], row["inside"]) >= plan.enough

    rows = fit(
        model, batches, steps=plan.steps, optimiser=AdamW(rate=plan.rate, weight_decay=plan.weight_decay),
        schedule=Cosine(warm_up=max(1, plan.steps // 20)), evaluate=evaluate, every=plan.every, until=until,
        progress=tell,
    )  # fmt: skip
    last = rows[-1]
    how = Learned(
        steps=int(last["step"]),
        first=last["first"],
        inside=last["inside"],
        half_step=half_step,
        seconds=time.process_time() - began,
    )
    return model.eval(), half or copy.deepcopy(model.state_dict()), how


@torch.no_grad()
def accuracy(model: nn.Module, text: Marked) -> tuple[float, float]:
    """Shares of first numbers of chunks and of later numbers that are named right."""
    right = model(text.tokens)[:, :-1].argmax(dim=-1) == text.tokens[:, 1:]
    starts, inside = moments(text.roles)
    return right[starts[:, :-1]].double().mean().item(), right[inside[:, :-1]].double().mean().item()


def moments(roles: Tensor) -> tuple[Tensor, Tensor]:
    """Where the next token is the first number of a chunk, and where it is a later one.

    Example:
        >>> roles = torch.tensor([[Role.OPERATION, Role.REFERENCE, Role.NUMBER, Role.NUMBER, Role.DEFINE]])
        >>> [place.nonzero()[:, 1].tolist() for place in moments(roles)]
        [[1], [2]]
    """
    number = roles == Role.NUMBER
    follows = torch.cat((number[:, 1:], torch.zeros_like(number[:, :1])), dim=1)
    return roles == Role.REFERENCE, number & follows
