"""Training data for indicator tuning: prompts whose answer depends on them are found by attention and marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from windeye.data.text import INDICATOR, label_tokens, mark, render
from windeye.data.text.conversation import Message, Template
from windeye.sites import context_scores
from windeye.sites.context import Reduce


class Marked(NamedTuple):
    """A conversation with its marks, and the score of the answer of each turn that has one."""

    messages: list[dict[str, str]]
    scores: dict[int, float]


def mark_dependent(
    messages: Sequence[Message],
    model: nn.Module,
    tokenizer: Any,
    template: Template,
    *,
    layer: int,
    beta: float = 0.6,
    reduce: Reduce = "max",
    indicator: str = INDICATOR,
    max_tokens: int | None = None,
) -> Marked:
    """Mark the user turns whose answer has a score above ``beta``.

    Args:
        messages: a conversation without marks.
        model: the seed model: a decoder of ours, or one of transformers after `windeye.hf.attach`.
        tokenizer, template: of the seed model, see `windeye.data.text.render`.
        layer: whose attention is read; the paper takes 15 of 22 or 32.
        beta: the paper takes 0.6, which marks 4 to 34 % of its conversations; models differ, so look at the scores.
        reduce: over heads, for each token of an answer.
        indicator: the text of the marker.
        max_tokens: what stands behind so many tokens is not read: answers count with what is left of them, or not at
            all. The paper reads 2,047.

    Raises:
        ValueError, IndexError: a template that changes messages, or there is no such layer.

    Source: context-awareness spec, D and E.

    Example:
        >>> from windeye.data.text import RoleTags, train_bpe
        >>> from windeye.models import transformer
        >>> bpe = train_bpe("the cat and the hat " * 20, 280)
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=280)
        >>> talk = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "the hat"}]
        >>> mark_dependent(talk, model, bpe, RoleTags(), layer=1, beta=0.0).messages[0]["content"]
        'the cat.[IND]'
    """
    tokens = label_tokens(render(messages, template), tokenizer).first(max_tokens)
    answers = tokens.responses()
    if not len(answers):
        return Marked(mark(messages, (), indicator), {})
    device = next(model.parameters()).device
    ids, user, answers = (t[None].to(device) for t in (tokens.ids, tokens.of("user"), answers))
    scores = context_scores(model, ids, user, answers, layer=layer, reduce=reduce)[0].tolist()
    turns = torch.unique(tokens.turn[tokens.of("assistant")]).tolist()
    found = dict(zip(turns, scores, strict=True))
    return Marked(mark(messages, {turn for turn, score in found.items() if score > beta}, indicator), found)
