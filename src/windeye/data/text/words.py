"""Texts as words: cut, counted, numbered, laid into rows with padding on the right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from windeye.data.sequences import check_integer

PADDING, UNKNOWN = 0, 1
NUMBER = "qqq"
"""What every number is written as, so that words and not figures decide."""

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words in lower case, with their apostrophes; each punctuation mark is a word, each run of digits is `NUMBER`.

    Example:
        >>> words_of("Don't wait 45 min, @united!")
        ["don't", 'wait', 'qqq', 'min', ',', '@', 'united', '!']
    """
    return [NUMBER if word[0].isdecimal() else word for word in _WORD.findall(text.lower())]


@dataclass(frozen=True)
class Vocabulary:
    """Words and how often each was seen, the most frequent first; 0 is padding and 1 any other word.

    Example:
        >>> vocabulary = Vocabulary.of([["a", "b", "a"], ["c", "a", "b"]], least=2)
        >>> vocabulary.words, vocabulary.counts
        (('<padding>', '<unknown>', 'a', 'b'), (0, 1, 3, 2))
        >>> vocabulary.numbers(["b", "z"])
        [3, 1]
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {word: place for place, word in enumerate(self.words)})

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], least: int = 1) -> Vocabulary:
        """The words that occur at least so often; all others are counted as unknown.

        Raises:
            ValueError, TypeError: least is below 1.
        """
        check_integer("least", least, 1)
        counted = Counter(word for text in texts for word in text)
        kept = sorted(((count, word) for word, count in counted.items() if count >= least), key=lambda c: (-c[0], c[1]))
        unknown = sum(counted.values()) - sum(count for count, _ in kept)
        words = ("<padding>", "<unknown>", *(word for _, word in kept))
        return cls(words, (0, unknown, *(count for count, _ in kept)))

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, text: Iterable[str]) -> list[int]:
        """The numbers of words."""
        places: dict[str, int] = self._places  # type: ignore[attr-defined]
        return [places.get(word, UNKNOWN) for word in text]


def rows_of(
    texts: Sequence[Sequence[int]], longest: int | None = None
) -> tuple[Int64[Tensor, "texts n"], Int64[Tensor, " texts"]]:
    """Numbers of words as rows with padding on the right, and how many words each has; the rest is cut off.

    Raises:
        ValueError: a text without words.

    Example:
        >>> rows_of([[5, 6, 7], [8]], longest=2)
        (tensor([[5, 6],
                [8, 0]]), tensor([2, 1]))
    """
    kept = [list(text[:longest]) for text in texts]
    if empty := [place for place, text in enumerate(kept) if not text]:
        raise ValueError(f"texts {empty[:5]} have no words; leave them out")
    lengths = torch.tensor([len(text) for text in kept], dtype=torch.int64)
    rows = torch.full((len(kept), max(map(len, kept), default=0)), PADDING, dtype=torch.int64)
    for row, text in zip(rows, kept, strict=True):
        row[: len(text)] = torch.tensor(text)
    return rows, lengths
