"""Passkey retrieval: one number said in a long monotonous text, asked for at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windeye.data.sequences import IGNORED, Sequences, Split, check_integer, generator_for
from windeye.data.tasks.hide import as_tokens, check_depth, cuts_at, digits, hide

FILLER = b"The river runs to the sea. Rain falls on the hills. The hills feed the river. And so it goes on. "
BEFORE, AFTER = b"The pass key is ", b". Keep it in mind. "
QUESTION = b"What is the pass key? The pass key is "


@dataclass(frozen=True)
class Passkey:
    """A number hidden in a cycle of filler sentences, at byte level.

    A sequence is filler, the sentence that says the key, more filler, then a question that the key answers. The targets
    are the key's digits behind the question (each judged given the ones before it); everything else is ignored.

    Args:
        length: bytes in a sequence.
        digits: digits of the key, each uniform in 0 .. 9, leading zeros included.
        depth: where the key's sentence stands, 0 at the beginning and 1 right before the question; None draws a place
            for each sequence, every place as likely.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Guessing is right with probability 0.1 per digit. Source: the passkey protocol (longheads spec) with sentences of
    our own; equals the single-needle task on a noise haystack (titans spec).

    Example:
        >>> tokens, targets = Passkey(length=256, depth=0.0).sample(1, seed=3)
        >>> bytes(tokens[0].tolist())[:40]
        b'The pass key is 46987. Keep it in mind. '
        >>> bytes(targets[targets != IGNORED].tolist())
        b'46987'
    """

    length: int = 256
    digits: int = 5
    depth: float | None = None

    def __post_init__(self) -> None:
        check_integer("digits", self.digits, 1)
        check_integer("length", self.length, 1)
        least = len(BEFORE + AFTER + QUESTION) + 2 * self.digits - 1
        if self.length < least:
            raise ValueError(
                f"length must be at least {least} (sentence and question with {self.digits} digits), got {self.length}"
            )
        check_depth(self.depth, 1)

    @property
    def vocabulary(self) -> int:
        """Tokens are bytes."""
        return 256

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> Sequences:
        """Draw examples. Equal arguments give equal examples; train and test are distinct streams of one seed.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, a seed that is no integer.
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "passkey")
        key = digits(examples, 1, self.digits, generator)
        sentence = torch.cat([_each(BEFORE, examples), key, _each(AFTER, examples)], dim=2)
        asked = torch.cat([_each(QUESTION, examples), key], dim=2)[:, 0]
        # One byte more than the length: the last digit is a target and never an input.
        room = self.length + 1 - sentence.shape[2] - asked.shape[1]
        filler = as_tokens(FILLER).repeat(room // len(FILLER) + 1)[:room].expand(examples, room)
        context = hide(filler, sentence, cuts_at(self.depth, examples, 1, room, generator))
        return answered(torch.cat([context, asked], dim=1), self.digits)


def _each(text: bytes, examples: int) -> Tensor:
    return as_tokens(text).expand(examples, 1, -1)


def answered(text: Tensor, answer: int, *, all_targets: bool = False) -> Sequences:
    """Inputs and next-token targets of texts that end with an answer; only the answer is judged unless all is."""
    tokens, targets = text[:, :-1].contiguous(), text[:, 1:].clone()
    if not all_targets:
        targets[:, :-answer] = IGNORED
    return Sequences(tokens, targets)
