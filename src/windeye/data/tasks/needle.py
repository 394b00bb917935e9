"""Needles in a haystack of real text: marked facts, one of which is asked for at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from windeye.data.sequences import Sequences, Split, check_integer, generator_for
from windeye.data.tasks.draws import distinct, shuffled
from windeye.data.tasks.hide import as_tokens, check_depth, cuts_at, digits, hide
from windeye.data.tasks.passkey import answered
from windeye.data.text.windows import random_windows

#: Control characters that texts do not contain mark the needles: begin, between key and value, end.
BEGIN, IS, END = b"\x02", b"\x1f", b"\x03"
LETTERS = 26


@dataclass(frozen=True)
class Needle:
    """Facts hidden in windows of a text, at byte level; the question repeats one key and asks for its value.

    A needle is ``BEGIN key IS value END``, the question ``BEGIN key IS``; without keys ``BEGIN value END`` and
    ``BEGIN``. Keys are lower-case letters and distinct within a sequence, values are decimal digits.

    Args:
        length: bytes in a sequence, with needles, question and answer.
        needles: facts in a sequence; with more than one, keys tell them apart and the others distract.
        repeats: how often each fact is written.
        key_length: letters of a key; 0 leaves the key out.
        value_length: digits of a value.
        depth: where a single needle stands, from 0 (beginning) to 1 (right before the question); None draws places for
            each sequence, every arrangement as likely.
        answer_only: judge the value behind the question only; otherwise every next byte is a target.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Guessing is right with probability 0.1 per digit. Source: the byte-level needle of the longheads spec (no keys,
    three digits) and the multi-key needle tasks (titans spec).

    Example:
        >>> from windeye.data.text import corpus
        >>> task = Needle(length=128, needles=2, key_length=2, value_length=3)
        >>> tokens, targets = task.sample(4, seed=0, haystack=corpus("pydoc"))
        >>> tokens.shape, int((targets >= 0).sum())
        (torch.Size([4, 128]), 12)
    """

    length: int = 256
    needles: int = 1
    repeats: int = 1
    key_length: int = 0
    value_length: int = 3
    depth: float | None = None
    answer_only: bool = True

    def __post_init__(self) -> None:
        check_integer("length", self.length, 1)
        check_integer("needles", self.needles, 1)
        check_integer("repeats", self.repeats, 1)
        check_integer("key_length", self.key_length, 0)
        check_integer("value_length", self.value_length, 1)
        keys = LETTERS**self.key_length
        if keys < self.needles:
            raise ValueError(f"key_length {self.key_length} makes {keys} keys, too few for {self.needles} needles")
        if self._hay < 0:
            raise ValueError(
                f"length must be at least {self.length - self._hay} for {self.needles * self.repeats} needles and a "
                f"question, got {self.length}"
            )
        check_depth(self.depth, self.needles * self.repeats)

    @property
    def vocabulary(self) -> int:
        """Tokens are bytes."""
        return 256

    @property
    def _hay(self) -> int:
        """Bytes that are left for the text. The answer's last byte is a target and never an input."""
        question = 1 + bool(self.key_length) + self.key_length
        needle = question + self.value_length + 1
        return self.length + 1 - self.needles * self.repeats * needle - question - self.value_length

    def sample(
        self,
        examples: int,
        *,
        seed: int,
        split: Split = "train",
        haystack: Shaped[Tensor, " bytes"] | Sequence[Shaped[Tensor, " bytes"]],
    ) -> Sequences:
        """Draw examples. Equal arguments give equal examples; train and test are distinct streams of one seed.

        Args:
            examples: number of sequences.
            seed: decides keys, values, places and stretches of text.
            split: "train" or "test". The text itself is not split here: pass other stretches for tests.
            haystack: one text as bytes, or several; a window never crosses from one into the next.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, a haystack that is too short.
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "needle")
        keys = _letters(distinct(examples, self.needles, LETTERS**self.key_length, generator), self.key_length)
        values = digits(examples, self.needles, self.value_length, generator)
        asked = torch.cat([_mark(BEGIN, keys), keys, _mark(IS if self.key_length else b"", keys)], dim=2)
        facts = torch.cat([asked, values, _mark(END, keys)], dim=2)

        written = self.needles * self.repeats
        which = shuffled(examples, written, generator) % self.needles
        facts = facts.gather(1, which.unsqueeze(-1).expand(-1, -1, facts.shape[2]))
        hay = random_windows(haystack, self._hay, examples, generator)
        context = hide(hay, facts, cuts_at(self.depth, examples, written, self._hay, generator))

        # Facts are alike, so the first is as good as any to ask for; its places were shuffled.
        text = torch.cat([context, asked[:, 0], values[:, 0]], dim=1)
        return answered(text, self.value_length, all_targets=not self.answer_only)


def _mark(text: bytes, like: Tensor) -> Int64[Tensor, "examples needles size"]:
    return as_tokens(text).expand(*like.shape[:2], -1)


def _letters(codes: Int64[Tensor, "examples needles"], size: int) -> Int64[Tensor, "examples needles size"]:
    """Numbers written in base 26 with the letters a to z."""
    powers = LETTERS ** torch.arange(size - 1, -1, -1)
    return ord("a") + codes.unsqueeze(-1) // powers % LETTERS
