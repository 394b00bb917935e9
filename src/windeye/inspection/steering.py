"""Before and after: what edits do to the next token, to what is generated, and to the attention itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from windeye.inspection.measure import Inspection, Progress, inspect, run
from windeye.inspection.table import Table, number
from windeye.ops import Statistic
from windeye.sites import Edit, steer

Next = list[tuple[str, float]]
"""Tokens and their probabilities."""


@dataclass(frozen=True, eq=False)
class Effect:
    """A model with and without edits. ``text`` and ``next`` are None of models that do not say the next token."""

    before: Inspection
    after: Inspection
    next_before: Next | None = None
    next_after: Next | None = None
    text_before: str | None = None
    text_after: str | None = None

    def as_plain(self) -> dict[str, Any]:
        """What JSON holds."""
        return {
            "before": self.before.as_plain(),
            "after": self.after.as_plain(),
            "next": {"before": self.next_before, "after": self.next_after},
            "text": {"before": self.text_before, "after": self.text_after},
        }

    def next_tokens(self) -> Table:
        """Likely next tokens side by side."""
        pairs = zip(self.next_before or [], self.next_after or [], strict=True)
        rows = [(repr(a), f"{p:.3f}", repr(b), f"{q:.3f}") for (a, p), (b, q) in pairs]
        return ("before", "probability", "after", "probability after"), rows

    def statistics(self) -> Table:
        """Means over layers and heads side by side, with the layer that changed most."""
        rows = []
        for name, values in self.before.per_head.items():
            other = self.after.per_head[name]
            change = abs(other - values).mean(axis=1)
            where = f"{self.before.layers[int(change.argmax())]} ({number(change.max())})" if change.max() > 0 else ""
            rows.append((name, number(values.mean()), number(other.mean()), where))
        return ("statistic", "before", "after", "layer of the largest mean change"), rows


def effect(
    model: Any,
    tokenizer: Any,
    ids: Int[Tensor, "1 n"],
    edits: Sequence[Edit],
    before: Inspection,
    stats: Mapping[str, Statistic],
    *,
    new_tokens: int = 24,
    progress: Progress = lambda _what, _share: None,
) -> Effect:
    """Inspect again under edits, and compare what comes next.

    Args:
        before: the inspection without them, of the same text and layers.
        new_tokens: how much to generate, greedily.

    Raises:
        ValueError, IndexError: edits that the model cannot have.
    """
    steering = steer(model, edits)
    with steering:
        after = inspect(
            model, ids, before.tokens, stats, layers=before.layers, scan=before.scan, name=before.model,
            progress=progress,
        )  # fmt: skip
    if not (hasattr(model, "can_generate") and model.can_generate()):
        return Effect(before, after)
    progress("generating", 0.0)
    plain = likely_next(model, tokenizer, ids), continuation(model, tokenizer, ids, new_tokens)
    with steering:
        edited = likely_next(model, tokenizer, ids), continuation(model, tokenizer, ids, new_tokens)
    return Effect(before, after, plain[0], edited[0], plain[1], edited[1])


def likely_next(model: Any, tokenizer: Any, ids: Int[Tensor, "1 n"], count: int = 10) -> Next:
    """The most probable next tokens."""
    logits = run(model, ids).logits[0, -1].float()
    values, places = torch.softmax(logits, dim=-1).topk(min(count, logits.numel()))
    return [(tokenizer.decode([place]), value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]


def continuation(model: Any, tokenizer: Any, ids: Int[Tensor, "1 n"], new_tokens: int) -> str:
    """What the model writes, the most probable token at each step."""
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )  # fmt: skip
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
