"""How much an answer reads of what a user wrote, and how to make it read more."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.kernels.statistics.statistic import SpanMass
from windeye.sites.edits import KeyBias
from windeye.sites.places import Keys, Where
from windeye.sites.until import until
from windeye.sites.watch import watch

Reduce = Literal["max", "mean"]
_ALL = Where()


@torch.no_grad()
def context_scores(
    model: nn.Module,
    ids: Int[Tensor, "batch tokens"],
    span: Bool[Tensor, "batch tokens"],
    answers: Bool[Tensor, "batch answers tokens"],
    *,
    layer: int,
    reduce: Reduce = "max",
    **inputs: Any,
) -> Float[Tensor, "batch answers"]:
    """How much each answer depends on its context: ``mean_y max_h sum_{x in span} A_h[y, x]`` over its tokens ``y``.

    One pass up to ``layer``, with memory that grows with the tokens. With several turns the span may hold what all
    users say: an answer sees only what stands before it.

    Args:
        model: one of ours, or one of transformers after `windeye.hf.attach`.
        ids: conversations with their answers. In our decoders places count from the first token of a sequence.
        span: what may be read, for example ``tokens.of("user")`` of `windeye.data.text.label_tokens`.
        answers: a row per answer, as ``tokens.responses()``; rows without a token stand for no answer.
        layer: from 0; the paper takes 15 of 22 or 32.
        reduce: over heads, for each token; the paper takes "max".
        inputs: what else the model is called with, such as ``attention_mask`` or ``padding``.

    Returns:
        Numbers in [0, 1]; NaN for rows of ``answers`` without a token.

    Raises:
        ValueError, IndexError: shapes do not fit, or there is no such layer.

    Differs from: the official code, where the text of a system message counts as the user's, new lines in a user's
    message do not, and the end token of an answer is one of its tokens. Spans say here what counts.

    Source: context-awareness spec, D.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=3, dim=32, heads=4, vocab_size=50)
        >>> place = torch.arange(8)[None]
        >>> context_scores(model, torch.arange(8)[None], place < 5, (place >= 5)[:, None], layer=1).shape
        torch.Size([1, 1])
    """
    if span.shape != ids.shape or answers.dim() != 3 or answers.shape[::2] != ids.shape:
        batch, tokens = ids.shape
        raise ValueError(
            f"span must be [batch {batch}, tokens {tokens}] and answers [batch, answers, tokens], got shapes "
            f"{tuple(span.shape)} and {tuple(answers.shape)}"
        )
    with watch(model, {"span": SpanMass(span)}, layers=[layer]) as seen, until(model, layer):
        model(ids, **inputs)
    return dependency(seen["span", layer], answers, reduce)


def dependency(
    mass: Float[Tensor, "batch tokens heads"], answers: Bool[Tensor, "batch answers tokens"], reduce: Reduce = "max"
) -> Float[Tensor, "batch answers"]:
    """The score of `context_scores` from the weight that every token puts on the span in every head.

    Example:
        >>> dependency(torch.tensor([[[0.0, 0.2], [0.5, 0.3], [0.1, 0.7]]]), torch.tensor([[[False, True, True]]]))
        tensor([[0.6000]])
    """
    if reduce not in ("max", "mean"):
        raise ValueError(f'reduce must be "max" or "mean", got {reduce!r}')
    rows = mass.amax(dim=-1) if reduce == "max" else mass.mean(dim=-1)
    # A row that does not count may be NaN, which zero times does not remove.
    kept = torch.where(answers, rows[:, None], 0.0)
    return kept.sum(dim=-1) / answers.sum(dim=-1)


@torch.no_grad()
def allocation(
    model: nn.Module,
    ids: Int[Tensor, "batch tokens"],
    spans: Bool[Tensor, "batch spans tokens"],
    *,
    layer: int,
    row: int = -1,
    **inputs: Any,
) -> Float[Tensor, "batch heads spans"]:
    """The weight of one query on several sets of keys, by head.

    Args:
        model, ids, layer, inputs: as of `context_scores`.
        spans: True for the keys of a set.
        row: which query; the last by default.

    Source: context-awareness spec, B.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> halves = torch.stack((torch.arange(8) < 4, torch.arange(8) >= 4))[None]
        >>> allocation(model, torch.arange(8)[None], halves, layer=1).sum(dim=-1).allclose(torch.ones(1, 4))
        True
    """
    with watch(model, {"spans": SpanMass(spans)}, layers=[layer]) as seen, until(model, layer):
        model(ids, **inputs)
    return seen["spans", layer][:, row]


def emphasis(span: Bool[Tensor, "batch tokens"], alpha: float, *, where: Where = _ALL) -> KeyBias:
    """The edit that multiplies the weights of all keys outside a span by ``alpha`` and brings each row back to 1:
    ``log alpha`` on their scores. Tokens that are generated later lie outside.

    Queries that see nothing of the span are left as they are, whatever ``alpha`` is.

    Args:
        span: what to read, by position in the sequence; batch may be 1.
        alpha: in (0, 1] to read more of the span, above 1 to read less; 0 is refused, for it would leave queries before
            the span without any key.
        where: layers, heads and queries; the paper steers all heads of all layers.

    Raises:
        ValueError: an empty span in some sequence, or ``alpha`` not positive.

    Differs from: the official code, which leaves generated keys alone, and with several spans applies ``alpha`` once
    for each that a key is outside of.

    Source: context-awareness spec, C.

    Example:
        >>> span = torch.tensor([[False, True, True, False]])
        >>> emphasis(span, 0.5).keys.mask(torch.arange(6)[None]).int().tolist()
        [[1, 0, 0, 1, 1, 1]]
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
    if empty := (~span.any(dim=1)).nonzero()[:, 0].tolist():
        raise ValueError(f"span must hold a token in every sequence, sequences {empty} have none")
    return KeyBias(math.log(alpha), Keys.of(span, outside=True), where=where)
