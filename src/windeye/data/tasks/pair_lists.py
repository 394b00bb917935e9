"""Lists of keys and values that come again in another order: what a small model learns to look up in minutes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from windeye.data.sequences import IGNORED, Sequences, Split, check_integer, generator_for
from windeye.data.tasks.contrast import ContrastBatch
from windeye.data.tasks.draws import distinct, shuffled


@dataclass(frozen=True)
class PairLists:
    """``k1 v1 k2 v2 ...`` with every key and distinct values, then the same pairs again, each time in another order.

    From the second list on the value behind a key is a target. Tokens ``0 .. keys - 1`` are keys, the rest values.

    Args:
        keys: pairs in a list.
        values: in the vocabulary, at least as many.
        lists: how often the pairs come.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Naming any value of the list is right with probability ``1 / keys``. Source: circuit-reuse spec.

    Example:
        >>> tokens, targets = PairLists(keys=3, values=5, lists=2).sample(1, seed=0)
        >>> tokens.shape, int((targets != IGNORED).sum())
        (torch.Size([1, 12]), 3)
    """

    keys: int = 6
    values: int = 23
    lists: int = 4

    def __post_init__(self) -> None:
        check_integer("keys", self.keys, 2)
        check_integer("values", self.values, self.keys)
        check_integer("lists", self.lists, 2)

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values

    @property
    def length(self) -> int:
        """Tokens of a training sequence."""
        return 2 * self.keys * self.lists

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> Sequences:
        """Draw sequences of all lists. Equal arguments give equal examples; train and test are distinct streams."""
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "pair lists")
        values = self.keys + distinct(examples, self.keys, self.values, generator)
        tokens = torch.empty(examples, self.lists, self.keys, 2, dtype=torch.int64)
        for number in range(self.lists):
            order = shuffled(examples, self.keys, generator)
            tokens[:, number] = torch.stack((order, values.gather(1, order)), dim=-1)
        targets = torch.full_like(tokens, IGNORED)
        targets[:, 1:, :, 0] = tokens[:, 1:, :, 1]
        return Sequences(tokens.flatten(1), targets.flatten(1))

    def contrasts(self, examples: int, *, seed: int) -> ContrastBatch:
        """One list and a key that is asked for; in the corrupted prompt that key and another one have changed places in
        the list, so that the other one's value is the answer.

        Example:
            >>> batch = PairLists(keys=3, values=5).contrasts(4, seed=0)
            >>> batch.clean.shape, (batch.clean != batch.corrupt).sum(1).tolist()
            (torch.Size([4, 7]), [2, 2, 2, 2])
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, "test", "pair lists, contrasts")
        values = self.keys + distinct(examples, self.keys, self.values, generator)
        order = shuffled(examples, self.keys, generator)
        asked, other = distinct(examples, 2, self.keys, generator).unbind(1)  # places in the list
        rows = torch.arange(examples)
        clean = torch.empty(examples, 2 * self.keys + 1, dtype=torch.int64)
        clean[:, :-1:2], clean[:, 1::2], clean[:, -1] = order, values, order[rows, asked]
        corrupt = clean.clone()
        corrupt[rows, 2 * asked], corrupt[rows, 2 * other] = order[rows, other], order[rows, asked]
        answers = torch.stack((values[rows, asked], values[rows, other]), dim=1)
        return ContrastBatch(clean, corrupt, answers)
