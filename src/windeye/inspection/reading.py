"""A text as a model reads it, and what belongs to a model of transformers when it is inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from windeye.inspection.measure import longest
from windeye.sites.parts import KNOWN


@dataclass(frozen=True, eq=False)
class Reading:
    """Ids of a text, and each token as the piece of text that it is."""

    ids: Int[Tensor, "1 n"]
    tokens: tuple[str, ...]


def reach(model: Any) -> None:
    """Make the attention of a model of transformers reachable; that of our layers is.

    Raises:
        ValueError, TypeError: it cannot be reached; says why.
    """
    if any(getattr(module, "attention_site", False) for module in model.modules()):
        return
    from windeye.hf.attach import attach

    if model not in KNOWN:
        attach(model)


def read(model: Any, tokenizer: Any, text: str, *, most: int | None = None) -> Reading:
    """The tokens of a text, the first ``most`` of them if it has more.

    Raises:
        ValueError: the text is empty, or longer than the model has positions for and nobody said how much to read.
    """
    if not text.strip():
        raise ValueError("the text is empty; there is nothing to attend to")
    if most is not None and most < 1:
        raise ValueError(f"at least one token has to be read, got {most}")
    limit = longest(model)
    cut = {} if most is None else {"truncation": True, "max_length": most}
    offsets = {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    found = tokenizer(text, verbose=False, **cut, **offsets)
    ids = found["input_ids"]
    if len(ids) > limit and (most is None or not _rotates(model)):
        raise ValueError(
            f"the text has {len(ids)} tokens, {type(model).__name__} has positions for {limit}; "
            f"read the first {limit} of them (--max-tokens {limit})"
        )
    return Reading(torch.tensor([ids]), tuple(_pieces(tokenizer, text, ids, found.get("offset_mapping"))))


def ordinary_tokens(tokenizer: Any) -> Int[Tensor, " tokens"]:
    """Ids that stand for text, those of special tokens left out."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return torch.tensor([place for place in range(len(tokenizer)) if place not in special])


def ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer sets before and behind a text."""
    around = list(tokenizer("")["input_ids"])
    return around[:1], around[1:]


def _rotates(model: Any) -> bool:
    """Whether positions go on beyond those of training: rotary ones do, tables of them end."""
    return any(getattr(model.config, name, None) is not None for name in ("rope_parameters", "rope_theta"))


def _pieces(tokenizer: Any, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]] | None) -> list[str]:
    """What each token is of the text, blanks before it included; tokens that the tokenizer has added go by name."""
    names = tokenizer.convert_ids_to_tokens(ids)
    if offsets is None:
        return [tokenizer.convert_tokens_to_string([name]) for name in names]
    pieces, read = [], 0
    for name, (start, stop) in zip(names, offsets, strict=True):
        # Bytes of one character may be several tokens, which all point at it.
        pieces.append(text[read if read <= start else start : stop] if stop > start else name)
        read = max(read, stop)
    return pieces
