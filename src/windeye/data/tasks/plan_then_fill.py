"""Plan then fill: lines that define keys, and chunks whose first number must be looked up while the rest follows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from windeye.data.sequences import IGNORED, Sequences, Split, check_integer, generator_for
from windeye.data.tasks.draws import distinct, shuffled

MODULUS = 23
"""Numbers are ``0 .. MODULUS - 1``; their tokens are the numbers themselves."""


class Role(IntEnum):
    """What a token is in its line."""

    DEFINE = 0
    """Opens a definition."""
    NAME = 1
    """The key that a definition is of."""
    VALUE = 2
    """The number that it is given."""
    OPERATION = 3
    """Opens a chunk and says by how much its numbers rise."""
    REFERENCE = 4
    """The key whose value the chunk starts from; the next token is that value."""
    NUMBER = 5
    """A number of a chunk."""


class Marked(NamedTuple):
    """Tokens with the role of each."""

    tokens: Int64[Tensor, "examples length"]
    roles: Int64[Tensor, "examples length"]


@dataclass(frozen=True)
class PlanThenFill:
    """Text of two kinds of lines, in random order, the first of them a definition.

    ``DEFINE key value`` gives a key a number, once. ``operation key x_1 .. x_n`` names a key that has been defined;
    ``x_1`` is its value and ``x_(i+1) = x_i + step(operation) mod 23``, with step ``o + 1`` for operation ``o``. After
    ``operation key`` the next token must be fetched from far back, every later one follows from its neighbours.

    Tokens: numbers ``0 .. 22``, then keys, then operations, then DEFINE.

    Args:
        keys: keys of the vocabulary.
        definitions: keys that one text defines, at most ``keys``.
        chunks: chunks of one text.
        operations: kinds of chunks.
        numbers: numbers of a chunk.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Source: preplan-anchor spec, toy of effect (b); lines per text are ours.

    Example:
        >>> task = PlanThenFill()
        >>> made = task.marked(1, seed=0)
        >>> made.tokens.shape[1] == task.length, int((made.roles == Role.REFERENCE).sum()) == task.chunks
        (True, True)
    """

    keys: int = 6
    definitions: int = 6
    chunks: int = 9
    operations: int = 4
    numbers: int = 8

    def __post_init__(self) -> None:
        for name in ("keys", "definitions", "chunks", "operations"):
            check_integer(name, getattr(self, name), 1)
        check_integer("numbers", self.numbers, 2)
        if self.definitions > self.keys:
            raise ValueError(f"definitions must be at most keys {self.keys}, got {self.definitions}")
        if self.operations >= MODULUS:
            raise ValueError(f"operations must be below {MODULUS}, got {self.operations}")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return MODULUS + self.keys + self.operations + 1

    @property
    def length(self) -> int:
        """Tokens in a text."""
        return 3 * self.definitions + (2 + self.numbers) * self.chunks

    @property
    def define(self) -> int:
        """The token that opens a definition."""
        return self.vocabulary - 1

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> Sequences:
        """Texts with every next token as target, the last place without one.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, a seed that is no integer.
        """
        return _shifted(self.marked(examples, seed=seed, split=split).tokens)

    def marked(self, examples: int, *, seed: int, split: Split = "train", definitions_first: bool = False) -> Marked:
        """Texts with roles.

        Args:
            definitions_first: all definitions come before the first chunk: what follows them is a chunk for certain.
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "plan-then-fill")
        lines = self.definitions + self.chunks
        defines = _order(examples, self.definitions, lines, generator) < self.definitions
        if definitions_first:
            defines = (torch.arange(lines) < self.definitions).expand(examples, lines)
        names = distinct(examples, self.definitions, self.keys, generator)
        values = torch.randint(MODULUS, (examples, self.definitions), generator=generator)

        defined = defines.cumsum(dim=1)
        drawn = torch.rand(examples, lines, generator=generator, dtype=torch.float64)
        which = torch.where(defines, defined - 1, (drawn * defined).long())
        key, value = MODULUS + names.gather(1, which), values.gather(1, which)
        operation = torch.randint(self.operations, (examples, lines), generator=generator)
        steps = torch.arange(self.numbers) * (operation + 1)[..., None]
        opener = torch.where(defines, self.define, MODULUS + self.keys + operation)
        numbers = (value[..., None] + torch.where(defines[..., None], 0, steps)) % MODULUS

        # Every line is laid out as long as a chunk; of a definition the first three places are kept.
        tokens = torch.cat((opener[..., None], key[..., None], numbers), dim=-1)
        place = torch.arange(2 + self.numbers)
        kept = (place < 3) | ~defines[..., None]
        roles = torch.where(defines[..., None], place, Role.OPERATION + place).clamp(max=Role.NUMBER)
        return Marked(tokens[kept].view(examples, -1), roles[kept].view(examples, -1))

    def pairs(self, examples: int, *, rounds: int = 4, seed: int, split: Split = "train") -> Sequences:
        """Lists of pairs of key and value, ``definitions`` of them, all of which come again in every round.

        Each round is in another random order; from the second on the values are targets, and nothing else is. They
        teach looking up without the rest of the task.

        Raises:
            ValueError, TypeError: fewer than two rounds, and as `sample`.
        """
        check_integer("examples", examples, 0)
        check_integer("rounds", rounds, 2)
        generator = generator_for(seed, split, "plan-then-fill pairs")
        names = distinct(examples, self.definitions, self.keys, generator)
        values = torch.randint(MODULUS, (examples, self.definitions), generator=generator)
        which = torch.cat([shuffled(examples, self.definitions, generator) for _ in range(rounds)], dim=1)
        tokens = torch.stack((MODULUS + names.gather(1, which), values.gather(1, which)), dim=-1).flatten(1)
        tokens, targets = _shifted(tokens)
        known = torch.arange(tokens.shape[1])
        return Sequences(tokens, targets.masked_fill((known < 2 * self.definitions) | (known % 2 == 1), IGNORED))

    def right(self, tokens: Int64[Tensor, "rows chunk"], key: Tensor, value: Tensor) -> Tensor:
        """Whether a row is a whole chunk whose numbers are those of its operation and key.

        Args:
            tokens: rows of ``2 + numbers`` tokens.
            key, value: tokens of the keys that are defined for each row, and their numbers; [rows, definitions].

        Returns:
            [rows] of truths.

        Example:
            >>> task = PlanThenFill(keys=4, definitions=1, operations=2, numbers=3)
            >>> rows = torch.tensor([[28, 24, 22, 1, 3], [28, 24, 22, 0, 1], [28, 23, 22, 1, 3]])
            >>> task.right(rows, torch.tensor([[24]] * 3), torch.tensor([[22]] * 3)).tolist()
            [True, False, False]
        """
        operation = tokens[:, 0] - MODULUS - self.keys
        known = key == tokens[:, 1:2]
        start = (value * known).sum(dim=1)
        expected = (start[:, None] + torch.arange(self.numbers) * (operation + 1)[:, None]) % MODULUS
        names_one = (operation >= 0) & (operation < self.operations) & known.any(dim=1)
        return names_one & (tokens[:, 2:] == expected).all(dim=1)


def _order(rows: int, first: int, lines: int, generator: torch.Generator) -> Tensor:
    """In each row the numbers ``0 .. lines - 1`` in random order, the first of them below ``first``."""
    order = shuffled(rows, lines, generator)
    leading = (order < first).int().argmax(dim=1, keepdim=True)
    moved = order.gather(1, leading)
    return torch.cat((moved, order[order != moved].view(rows, lines - 1)), dim=1)


def _shifted(tokens: Tensor) -> Sequences:
    targets = torch.cat((tokens[:, 1:], torch.full_like(tokens[:, :1], IGNORED)), dim=1)
    return Sequences(tokens, targets)
