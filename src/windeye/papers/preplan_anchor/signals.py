"""What the two signals say on plan-then-fill text, where it is known which tokens plan and which are anchors."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn

from windeye.data.sequences import derived_seed
from windeye.data.tasks.plan_then_fill import Marked, Role
from windeye.papers.preplan_anchor.plan import ToyPlan
from windeye.papers.preplan_anchor.toy import moments
from windeye.train.credit import HeadTypes, Rhythm, middle_layers, rhythm

PEAK_SHARE = 0.1
"""Of the tokens of a text, those of largest FAI that are called peaks."""


class Signals(TypedDict):
    """Means over texts. Spans in tokens, FAI a weight.

    ``ratio`` is WAAD at chunk starts over WAAD inside chunks; ``lift`` how much more often a peak of FAI is a defining
    value than a token is, ``placed_lift`` than tokens at the same places of other texts are.
    """

    start: float
    inside: float
    ratio: float
    local_span: float
    global_span: float
    defining_fai: float
    other_fai: float
    lift: float
    placed_lift: float


class Example(TypedDict):
    """Both signals over one text, and the roles of its tokens."""

    roles: list[int]
    waad: list[float]
    fai: list[float]


def example(model: nn.Module, plan: ToyPlan, seed: int) -> Example:
    """The first of the texts that `signals_of` reads."""
    text, found = _read(model, plan, seed, typed=True)
    return Example(roles=text.roles[0].tolist(), waad=found.waad[0].tolist(), fai=found.fai[0].tolist())


def signals_of(model: nn.Module, plan: ToyPlan, seed: int, *, typed: bool = True) -> Signals:
    """Read both signals off a model; ``typed`` false averages over all heads instead of local and global ones."""
    text, found = _read(model, plan, seed, typed=typed)
    starts, inside = moments(text.roles)
    start, within = found.waad[starts].mean().item(), found.waad[inside].mean().item()
    defining = text.roles == Role.VALUE
    has_future = torch.arange(text.tokens.shape[1]) < text.tokens.shape[1] - plan.low
    lift, placed = lifts(found.fai[:, has_future], defining[:, has_future])
    places = {layer: place for place, layer in enumerate(found.layers)}

    def span(heads: tuple[tuple[int, int], ...]) -> float:
        return sum(found.spans[places[layer], head].item() for layer, head in heads) / len(heads)

    return Signals(
        start=start,
        inside=within,
        ratio=start / within,
        local_span=span(found.heads.local_heads),
        global_span=span(found.heads.global_heads),
        defining_fai=found.fai[defining & has_future].mean().item(),
        other_fai=found.fai[~defining & has_future].mean().item(),
        lift=lift,
        placed_lift=placed,
    )


def lifts(fai: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Share of wanted tokens among each text's peaks, over their share among all, and over that at the peaks' places.

    A model that attends evenly gives early tokens the largest influence, since their readers have few others to look
    at, and early tokens are definitions. The second number takes that out.

    Example:
        >>> fai, wanted = torch.zeros(2, 10), torch.zeros(2, 10, dtype=torch.bool)
        >>> fai[:, 3], wanted[0, 3], wanted[1, 4] = 1.0, True, True
        >>> lifts(fai, wanted)
        (5.0, 1.0)
    """
    count = max(1, round(PEAK_SHARE * fai.shape[1]))
    peaks = torch.zeros_like(wanted).scatter(1, fai.topk(count, dim=1).indices, True)
    share = wanted[peaks].double().mean()
    expected = wanted.double().mean(dim=0).expand(wanted.shape)[peaks].mean()
    if expected == 0:  # no text has a wanted token there, so that there is nothing to exceed
        return (share / wanted.double().mean()).item(), 1.0
    return (share / wanted.double().mean()).item(), (share / expected).item()


def _read(model: nn.Module, plan: ToyPlan, seed: int, *, typed: bool) -> tuple[Marked, Rhythm]:
    text = plan.task.marked(plan.texts, seed=derived_seed("signals", seed), split="test")
    layers = middle_layers(plan.layers)
    every = tuple((layer, head) for layer in layers for head in range(plan.heads))
    return text, rhythm(
        model, text.tokens, torch.ones_like(text.tokens, dtype=torch.bool), layers=layers, window=plan.window,
        low=plan.low, high=plan.high, heads=None if typed else HeadTypes(every, every),
    )  # fmt: skip
