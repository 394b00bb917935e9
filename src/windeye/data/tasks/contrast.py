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


@dataclass(frozen=True, eq=False)
class ContrastBatch:
    """Clean and corrupted prompts as tokens, padded on the right.

    Args:
        clean, corrupt: the two sides, token by token at the same places.
        answers: the tokens of answer and distractor.
        end: the place of each prompt's own last token, at which the answer is read; None: the last column.
        places: where named words stand.

    Raises:
        ValueError: shapes that do not fit, or an end that lies outside; names them.

    Example:
        >>> clean, corrupt = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[1, 7, 3], [4, 6, 0]])
        >>> batch = ContrastBatch(clean, corrupt, torch.tensor([[8, 9], [9, 8]]), end=torch.tensor([2, 1]))
        >>> len(batch), batch.at("end").tolist()
        (2, [[2], [1]])
    """

    clean: Int64[Tensor, "batch n"]
    corrupt: Int64[Tensor, "batch n"]
    answers: Int64[Tensor, "batch 2"]
    end: Int64[Tensor, " batch"] = field(default=None)  # type: ignore[assignment]
    places: dict[str, Int64[Tensor, " batch"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clean.dim() != 2 or self.clean.shape != self.corrupt.shape:
            raise ValueError(
                f"clean and corrupt must be [batch, tokens] of the same shape, got {tuple(self.clean.shape)} and "
                f"{tuple(self.corrupt.shape)}"
            )
        batch, n = self.clean.shape
        if self.answers.shape != (batch, 2):
            raise ValueError(f"answers must be [batch {batch}, 2], got {tuple(self.answers.shape)}")
        if self.end is None:
            object.__setattr__(self, "end", torch.full((batch,), n - 1, device=self.clean.device))
        if self.end.shape != (batch,) or (batch and not bool(((self.end >= 0) & (self.end < n)).all())):
            raise ValueError(f"end must be [batch {batch}] in 0 .. {n - 1}, got {self.end.tolist()}")

    def __len__(self) -> int:
        return len(self.clean)

    def at(self, places: str | Int64[Tensor, "batch places"]) -> Int64[Tensor, "batch places"]:
        """Places by name ("end", "all", or one of ``places``), or as they are given.

        Raises:
            ValueError: an unknown name or a wrong shape. IndexError: a place behind a prompt's end; names the prompt.
        """
        batch = len(self)
        if isinstance(places, str):
            if places == "all":
                last = int(self.end.max()) if batch else -1
                return torch.arange(last + 1, device=self.clean.device).expand(batch, -1)
            if places != "end" and places not in self.places:
                named = ", ".join(sorted({"all", "end", *self.places}))
                raise ValueError(f"places must be one of {named}, or a tensor, got {places!r}")
            return (self.end if places == "end" else self.places[places])[:, None]
        if places.dim() != 2 or len(places) != batch:
            raise ValueError(f"places must be [batch {batch}, places], got {tuple(places.shape)}")
        for prompt, (row, end) in enumerate(zip(places.tolist(), self.end.tolist(), strict=True)):
            for place in row:
                if not 0 <= place <= end:
                    raise IndexError(f"place {place} of prompt {prompt}: its tokens are 0 to {end}")
        return places

    def rows(self, chosen: slice | Int64[Tensor, " rows"]) -> ContrastBatch:
        """Some of the prompts, no longer than the longest of them."""
        end = self.end[chosen]
        n = int(end.max()) + 1 if len(end) else self.clean.shape[1]
        places = {name: found[chosen] for name, found in self.places.items()}
        return ContrastBatch(self.clean[chosen, :n], self.corrupt[chosen, :n], self.answers[chosen], end, places)


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
        corrupt=_padded(twins),
        answers=torch.tensor(answers),
        end=end,
        places={name: torch.tensor([found[name] for found in places]) for name in names},
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
