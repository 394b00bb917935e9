"""Prompts that come with a twin whose answer differs, and where their words stand among the tokens of a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Int64
from torch import Tensor


class Tokenizer(Protocol):
    """What is used of a tokenizer; the fast ones of transformers are such."""

    def __call__(self, text: str, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Contrast:
    """A prompt, its twin, and the two answers between which they decide.

    Args:
        text: what the model reads.
        answer: the right continuation, with its leading space.
        distractor: the wrong one that it is compared with.
        twin: a text of as many tokens that calls for another answer.
        twin_answer: the right continuation of the twin.
        chars: where named words begin, as offsets into ``text``; those of the twin are the same.
    """

    text: str
    answer: str
    distractor: str
    twin: str
    twin_answer: str
    chars: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ContrastBatch:
    """Contrasts as tokens, padded on the right.

    ``clean`` and ``twin`` are the two sides; ``answers`` holds the tokens of answer and distractor; ``end`` is the
    place of each prompt's own last token, at which the answer is read; ``places`` are those of the named words.
    """

    clean: Int64[Tensor, "batch n"]
    twin: Int64[Tensor, "batch n"]
    answers: Int64[Tensor, "batch 2"]
    end: Int64[Tensor, " batch"]
    places: dict[str, Int64[Tensor, " batch"]]

    def __len__(self) -> int:
        return len(self.end)


def single_tokens(words: Iterable[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    """The words that are one token behind a space; the others are left out.

    Example:
        >>> def letters(text, **options):
        ...     return {"input_ids": [text] if len(text) < 5 else list(text)}
        >>> single_tokens(["Amy", "Christopher"], letters)
        ('Amy',)
    """
    return tuple(word for word in words if len(_ids(f" {word}", tokenizer)) == 1)


def token_at(offsets: Sequence[tuple[int, int]], char: int) -> int:
    """The token that covers a character, by the (start, stop) of each token.

    Raises:
        ValueError: no token covers it.

    Example:
        >>> token_at([(0, 3), (3, 9)], 4)
        1
    """
    for place, (start, stop) in enumerate(offsets):
        if start <= char < stop:
            return place
    raise ValueError(f"no token covers character {char}; the tokens cover {_span(offsets)}")


def tokenize(contrasts: Sequence[Contrast], tokenizer: Tokenizer) -> ContrastBatch:
    """Tokens of both sides without special tokens, with the places of the named words.

    A tokenizer is called with ``return_offsets_mapping``; where words stand follows from their characters and never
    from counting words, so it holds for any vocabulary.

    Raises:
        ValueError: nothing to tokenize, an answer that is not one token, or a twin of another length; names the text.
    """
    if not contrasts:
        raise ValueError("contrasts must hold at least one prompt")
    rows, twins, answers, places = [], [], [], []
    for contrast in contrasts:
        found = tokenizer(contrast.text, add_special_tokens=False, return_offsets_mapping=True)
        row, twin = list(found["input_ids"]), _ids(contrast.twin, tokenizer)
        if len(row) != len(twin):
            raise ValueError(
                f"a prompt and its twin must have as many tokens, got {len(row)} and {len(twin)}: {contrast.text!r} "
                f"and {contrast.twin!r}; draw names with single_tokens"
            )
        offsets = [(int(start), int(stop)) for start, stop in found["offset_mapping"]]
        rows.append(row)
        twins.append(twin)
        answers.append([_one(contrast.answer, tokenizer), _one(contrast.distractor, tokenizer)])
        places.append({name: token_at(offsets, char) for name, char in contrast.chars.items()})
    end = torch.tensor([len(row) - 1 for row in rows])
    names = places[0].keys()
    return ContrastBatch(
        clean=_padded(rows),
        twin=_padded(twins),
        answers=torch.tensor(answers),
        end=end,
        places={name: torch.tensor([found[name] for found in places]) for name in names} | {"end": end},
    )


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _one(word: str, tokenizer: Tokenizer) -> int:
    ids = _ids(word, tokenizer)
    if len(ids) != 1:
        raise ValueError(f"the answer {word!r} must be one token, this tokenizer makes {len(ids)} of it")
    return ids[0]


def _padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def _span(offsets: Sequence[tuple[int, int]]) -> str:
    return f"{offsets[0][0]} .. {offsets[-1][1] - 1}" if offsets else "nothing"
