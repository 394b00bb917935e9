"""The rhythm of a real model over real text, against rotations of the same signals.

A rotation keeps how many peaks there are and how far apart they lie, and takes away only where they are.
"""

from __future__ import annotations

import time
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye.data.sequences import derived_seed
from windeye.data.text import corpus
from windeye.ops import FutureInfluence, MeanDistance, SinkMass, WindowedDistance
from windeye.papers.preplan_anchor.plan import TextPlan
from windeye.report import Tell
from windeye.sites import record, watch
from windeye.train.credit import HeadTypes, middle_layers, type_heads
from windeye.train.credit.rhythm import averaged, mean_spans

SHARE = 0.2
"""Of a text's tokens, how many may be peaks of a signal."""
LAG = 3
"""Tokens within which an anchor may follow its plan, the paper's reach."""

WINDOW, LOW = 10, 10
"""Of WAAD and FAI, in tokens."""

STATS = {
    "span": MeanDistance(),
    "waad": WindowedDistance(WINDOW),
    "fai": FutureInfluence(LOW, 100),
    "open": FutureInfluence(1, None),
    "sink": SinkMass(1),
}

Values = Float[Tensor, "texts tokens"]
Marks = Bool[Tensor, "texts tokens"]


class Chance(TypedDict):
    """A number, its mean over rotations, and the share of rotations in which it is at least as large."""

    seen: float
    chance: float
    p: float


class View(TypedDict):
    """One way of taking the signals, and what they say.

    ``follows`` is the share of FAI peaks on a WAAD peak or up to `LAG` tokens behind one. ``entropy`` is that of the
    prediction made at WAAD peaks, ``own_entropy`` that of the prediction of the token at a peak, in nats. Spans, in
    tokens, are means over the local and the global heads.
    """

    follows: Chance
    entropy: Chance
    own_entropy: Chance
    local_span: float
    global_span: float


class Reading(TypedDict):
    """Views by name; ``marks`` is the share of tokens without a letter or digit among the FAI peaks of the first."""

    views: dict[str, View]
    marks: Chance
    first_token: float
    """Mean weight on the first token of the text."""
    tokens: int
    seconds: float


PUBLISHED, WHOLE, OPEN, SINKLESS = "as published", "all heads averaged", "influence to the end", "first token left out"
"""Local heads look at the first token of a text for want of anything better, and far away it is: leaving its weight out
and scaling the rest up to 1 takes that out of spans and distances. Influence to the end begins at the next token."""


def read(plan: TextPlan, tell: Tell) -> Reading:
    """Load the model, read the texts once, compare with rotations.

    Raises:
        ImportError: without transformers. windeye.data.AssetUnavailable: the model cannot be had.
    """
    from windeye.hf.attach import attach
    from windeye.hf.pretrained import load

    began = time.process_time()
    model, tokenizer = load(plan.model)
    ids = windows(plan, tokenizer)
    response = (torch.arange(plan.tokens) >= plan.prompt)[None]
    layers = middle_layers(model.config.num_hidden_layers)
    found: dict[str, list[Tensor]] = {name: [] for name in STATS}
    entropies = []
    with attach(model), torch.no_grad():
        for place in range(len(ids)):
            with record(model, ["logits"]) as kept, watch(model, STATS, layers, rows=response) as watched:
                model(ids[place : place + 1])
            for name in STATS:
                found[name].append(watched[name])
            entropies.append(entropy(kept["logits"]))
            tell((place + 1) / len(ids))
    values = {name: torch.cat(parts, dim=1) for name, parts in found.items()}
    made = torch.cat(entropies)
    texts = Texts(plan, layers, response.expand(ids.shape), made)
    span, waad, sink = values["span"], values["waad"], values["sink"]
    where = torch.arange(plan.tokens, dtype=span.dtype)[:, None]
    rest = (1 - sink).clamp(min=1e-3)  # of heads that look at nothing else, next to nothing is left
    near = (waad - sink * where.clamp(max=WINDOW)) / rest, (span - sink * where) / rest
    anchors, published = texts.view(span, waad, values["fai"])
    return Reading(
        views={
            PUBLISHED: published,
            WHOLE: texts.view(span, waad, values["fai"], typed=False)[1],
            OPEN: texts.view(span, waad, values["open"])[1],
            SINKLESS: texts.view(near[1], near[0], values["fai"])[1],
        },
        marks=texts.chance.mean(marks(ids, tokenizer)[:, plan.prompt :], anchors),
        first_token=sink[:, :, plan.prompt :].mean().item(),
        tokens=made[:, plan.prompt :].numel(),
        seconds=time.process_time() - began,
    )


class Texts:
    """What all views have in common."""

    def __init__(self, plan: TextPlan, layers: tuple[int, ...], response: Marks, made: Values) -> None:
        self.prompt, self.layers, self.response, self.made = plan.prompt, layers, response, made
        tokens = plan.tokens - plan.prompt
        self.future = torch.arange(tokens) < tokens - LOW
        self.chance = Rotations(plan.shifts, len(response), tokens)

    def view(self, span: Tensor, waad: Tensor, fai: Tensor, *, typed: bool = True) -> tuple[Marks, View]:
        """FAI peaks, and what statistics of every head [layers, texts, tokens, heads] say."""
        spans = mean_spans(span, self.response)
        every = tuple((layer, head) for layer in self.layers for head in range(spans.shape[1]))
        heads = type_heads(spans, self.layers) if typed else HeadTypes(every, every)
        near, far = averaged(waad, self.layers, heads.local_heads), averaged(fai, self.layers, heads.global_heads)
        plans = peaks(near[:, self.prompt :], torch.ones_like(self.future))
        anchors = peaks(far[:, self.prompt :], self.future)
        return anchors, View(
            follows=self.chance.of(anchors, plans),
            entropy=self.chance.mean(self.made[:, self.prompt :], plans),
            own_entropy=self.chance.mean(self.made[:, self.prompt - 1 : -1], plans),
            local_span=self._mean(spans, heads.local_heads),
            global_span=self._mean(spans, heads.global_heads),
        )

    def _mean(self, spans: Tensor, chosen: tuple[tuple[int, int], ...]) -> float:
        return sum(spans[self.layers.index(layer), head].item() for layer, head in chosen) / len(chosen)


def windows(plan: TextPlan, tokenizer: Any) -> Int64[Tensor, "texts tokens"]:
    """Stretches of Python's own help, evenly spaced over it, each from the beginning of a line."""
    text = bytes(corpus("pydoc").tolist()).decode()
    found = []
    for place in range(plan.texts):
        begin = text.index("\n", place * (len(text) - 40 * plan.tokens) // plan.texts) + 1
        # No token of English is 40 characters long in the mean.
        found.append(tokenizer(text[begin : begin + 40 * plan.tokens])["input_ids"][: plan.tokens])
    return torch.tensor(found)


def entropy(logits: Float[Tensor, "batch tokens vocab"]) -> Float[Tensor, "batch tokens"]:
    """Of the prediction made at each token, in nats."""
    log_weights = logits.float().log_softmax(dim=-1)
    return -(log_weights.exp() * log_weights).sum(dim=-1)


def marks(ids: Int64[Tensor, "texts tokens"], tokenizer: Any) -> Values:
    """1.0 for tokens without a letter or digit."""
    pieces = [[tokenizer.decode([token]) for token in row] for row in ids.tolist()]
    return torch.tensor([[float(not any(map(str.isalnum, piece))) for piece in row] for row in pieces])


def peaks(signal: Values, allowed: Bool[Tensor, " tokens"]) -> Marks:
    """Tokens that no direct neighbour exceeds and that are among the largest `SHARE` of their text's allowed tokens.

    Example:
        >>> peaks(torch.tensor([[0.0, 3.0, 2.0, 0.0, 1.0]]), torch.ones(5, dtype=torch.bool)).tolist()
        [[False, True, False, False, False]]
    """
    inside = signal.masked_fill(~allowed, -torch.inf)
    around = torch.nn.functional.pad(inside, (1, 1), value=-torch.inf)
    highest = (inside >= around[:, :-2]) & (inside >= around[:, 2:]) & allowed
    count = max(1, round(SHARE * int(allowed.sum())))
    large = inside >= inside.topk(count, dim=1).values[:, -1:]
    return highest & large


class Rotations:
    """Comparisons with WAAD peaks that are rotated within each text, by as many tokens as a draw says.

    Example:
        >>> plans = torch.zeros(1, 50, dtype=torch.bool).index_fill(1, torch.tensor([10, 30]), True)
        >>> found = Rotations(200, 1, 50).of(plans.roll(2, dims=1), plans)
        >>> found["seen"], found["chance"] < 0.4
        (1.0, True)
    """

    def __init__(self, count: int, texts: int, tokens: int) -> None:
        generator = torch.Generator().manual_seed(derived_seed("rotations", count))
        draws = torch.randint(1, tokens, (count, texts, 1), generator=generator)
        self.source = (torch.arange(tokens) - draws) % tokens

    def of(self, anchors: Marks, plans: Marks) -> Chance:
        """Share of anchors on a plan or up to `LAG` tokens behind one."""
        near = reached(plans)
        rotated = reached(plans.expand(self.source.shape).gather(2, self.source))
        seen = near[anchors].double().mean()
        return _chance(seen, (rotated & anchors).sum(dim=(1, 2)).double() / anchors.sum())

    def mean(self, values: Values, plans: Marks) -> Chance:
        """Mean of a number over the plans."""
        rotated = plans.expand(self.source.shape).gather(2, self.source)
        means = (rotated * values.double()).sum(dim=(1, 2)) / plans.sum()
        return _chance(values[plans].double().mean(), means)


def reached(plans: Bool[Tensor, "*texts tokens"]) -> Bool[Tensor, "*texts tokens"]:
    """Tokens on a plan or up to `LAG` behind one."""
    near = plans.clone()
    for back in range(1, LAG + 1):
        near[..., back:] |= plans[..., :-back]
    return near


def _chance(seen: Tensor, rotated: Tensor) -> Chance:
    at_least = (rotated >= seen - 1e-12).sum().item()
    return Chance(seen=seen.item(), chance=rotated.mean().item(), p=(1 + at_least) / (1 + len(rotated)))
