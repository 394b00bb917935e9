"""Small dialogues: a passage about an entity, a question about one, and an answer of several symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from windeye.data.sequences import IGNORED, Sequences, Split, derived_seed, generator_for

Kind = Literal["passage", "memory", "conflict"]
KINDS: tuple[Kind, ...] = ("passage", "memory", "conflict")
"""The answer is what the passage says; the memorised string, with a passage about somebody else; the memorised string
although the passage is about the entity in question."""


class Dialogues(NamedTuple):
    """What is said, before it is written as tokens."""

    kind: Int64[Tensor, " n"]
    """Index into `KINDS`."""
    subject: Int64[Tensor, " n"]
    """Whom the passage is about."""
    asked: Int64[Tensor, " n"]
    passage: Int64[Tensor, "n size"]
    answer: Int64[Tensor, "n size"]


@dataclass(frozen=True)
class World:
    """Entities, each with a string of symbols that never changes and has to be memorised.

    A dialogue is ``USER subject passage QUESTION asked [INDICATOR] ANSWER answer END``. Tokens are the symbols, the
    entities, then the tags.

    Args:
        entities, symbols, size: how many there are, and symbols of a string.
        seed: decides the memorised strings.

    Source: context-awareness spec, (b).

    Example:
        >>> world = World(seed=0)
        >>> said = world.draw(3, (1, 1, 0), seed=0)
        >>> world.write(said).tokens.shape, world.prompts(said).shape
        (torch.Size([3, 18]), torch.Size([3, 11]))
    """

    entities: int = 48
    symbols: int = 32
    size: int = 6
    seed: int = 0

    @property
    def vocabulary(self) -> int:
        return self._tag(5)

    def _tag(self, number: int) -> int:
        """Of user, question, indicator, answer and end."""
        return self.symbols + self.entities + number

    @property
    def memory(self) -> Int64[Tensor, "entities size"]:
        """The memorised strings."""
        generator = torch.Generator().manual_seed(derived_seed("memory", self.seed))
        return torch.randint(self.symbols, (self.entities, self.size), generator=generator)

    def draw(self, n: int, shares: tuple[float, float, float], *, seed: int, split: Split = "train") -> Dialogues:
        """Dialogues of the three kinds in these shares, with fresh passages."""
        generator = generator_for(seed, split, f"dialogues of world {self.seed}")
        kind = torch.multinomial(torch.tensor(shares, dtype=torch.float64), n, replacement=True, generator=generator)
        asked = torch.randint(self.entities, (n,), generator=generator)
        other = (asked + 1 + torch.randint(self.entities - 1, (n,), generator=generator)) % self.entities
        passage = torch.randint(self.symbols, (n, self.size), generator=generator)
        subject = torch.where(kind == KINDS.index("memory"), other, asked)
        answer = torch.where((kind == KINDS.index("passage"))[:, None], passage, self.memory[asked])
        return Dialogues(kind, subject, asked, passage, answer)

    def write(self, said: Dialogues, marked: Bool[Tensor, " n"] | None = None) -> Sequences:
        """Whole dialogues, with the answer and the end as targets; the indicator stands where ``marked``.

        Those without it close with the end, which the others leave to the target, so that all are of one length.
        """
        n = len(said.kind)
        marked = torch.zeros(n, dtype=torch.bool) if marked is None else marked
        question, tag, end = self._question(said), self._all(n, 3), self._all(n, 4)
        plain = torch.cat((question, tag, said.answer, end), dim=1)
        longer = torch.cat((question, self._all(n, 2), tag, said.answer), dim=1)
        tokens = torch.where(marked[:, None], longer, plain)
        places = question.shape[1] + marked.long()[:, None] + torch.arange(self.size + 1)
        targets = torch.full_like(tokens, IGNORED).scatter_(1, places, torch.cat((said.answer, end), dim=1))
        return Sequences(tokens, targets)

    def prompts(self, said: Dialogues, *, marked: bool = False) -> Int64[Tensor, "n tokens"]:
        """Dialogues up to the answer's tag."""
        n = len(said.kind)
        return torch.cat((self._question(said), *([self._all(n, 2)] if marked else []), self._all(n, 3)), dim=1)

    def passage_span(self, tokens: int) -> Bool[Tensor, "1 tokens"]:
        """The passage among so many tokens of a dialogue."""
        places = torch.arange(tokens)[None]
        return (places >= 1) & (places < 2 + self.size)

    def user_span(self, tokens: int) -> Bool[Tensor, "1 tokens"]:
        """All that the user says."""
        places = torch.arange(tokens)[None]
        return (places >= 1) & (places < 4 + self.size)

    def answer_span(self, tokens: int) -> Bool[Tensor, "1 tokens"]:
        """The answer of a dialogue without indicator."""
        places = torch.arange(tokens)[None]
        return (places >= 5 + self.size) & (places < 5 + 2 * self.size)

    def _all(self, n: int, tag: int) -> Tensor:
        return torch.full((n, 1), self._tag(tag))

    def _question(self, said: Dialogues) -> Tensor:
        n = len(said.kind)
        subject, asked = (self.symbols + entity[:, None] for entity in (said.subject, said.asked))
        return torch.cat((self._all(n, 0), subject, said.passage, self._all(n, 1), asked), dim=1)
