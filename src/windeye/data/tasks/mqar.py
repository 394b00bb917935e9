"""MQAR, multi-query associative recall: pairs of key and value come first, later each key asks for its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from windeye.data.sequences import IGNORED, Sequences, Split, check_integer, generator_for
from windeye.data.tasks.draws import distinct, weighted


@dataclass(frozen=True)
class MQAR:
    """Multi-query associative recall.

    ``k1 v1 k2 v2 ... kK vK`` fill the first ``2 K`` positions. Behind them lie ``(length - 2 K) / 2`` slots, two
    positions each; every key comes back once, at the beginning of a slot of its own, and there its value is the target.
    Slot ``i = 1, 2, ...`` is drawn in proportion to ``i ** (power - 1)``, without replacement. The value is not
    written after the query: a later query cannot read an earlier answer.

    Args:
        vocabulary: number of tokens. Token 0 means nothing, keys are ``1 .. V // 2 - 1``, values ``V // 2 .. V - 1``.
        length: tokens in a sequence, even.
        pairs: keys and values in a sequence, all distinct within it.
        power: 0.01 asks soon after the pairs, 1.0 asks anywhere with equal chance.
        filler: what stands in the positions that are left: a "random" token of the whole vocabulary, so that fillers
            look like pairs and may repeat a key, or "zero", the token 0.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Naming any value of the sequence is right with probability ``1 / pairs``, naming any value of the vocabulary with
    ``1 / (V - V // 2)``.

    Source: the generator of the MQAR benchmark (based spec); differs in that one seed decides fillers too.

    Example:
        >>> tokens, targets = MQAR(vocabulary=32, length=12, pairs=2, filler="zero").sample(1, seed=0)
        >>> tokens.shape, int((targets != IGNORED).sum())
        (torch.Size([1, 12]), 2)
        >>> MQAR(length=64, pairs=17)
        Traceback (most recent call last):
        ...
        ValueError: pairs must be at most length / 4 = 16, got 17
    """

    vocabulary: int = 256
    length: int = 64
    pairs: int = 4
    power: float = 0.01
    filler: Literal["random", "zero"] = "random"

    def __post_init__(self) -> None:
        check_integer("pairs", self.pairs, 1)
        check_integer("length", self.length, 1)
        check_integer("vocabulary", self.vocabulary, 1)
        if self.length % 2:
            raise ValueError(f"length must be even, got {self.length}")
        if 4 * self.pairs > self.length:
            raise ValueError(f"pairs must be at most length / 4 = {self.length // 4}, got {self.pairs}")
        if self.vocabulary <= self.length:
            raise ValueError(f"vocabulary must be greater than length {self.length}, got {self.vocabulary}")
        if not 0 < self.power < float("inf"):
            raise ValueError(f"power must be positive and finite, got {self.power}")
        if self.filler not in ("random", "zero"):
            raise ValueError(f'filler must be "random" or "zero", got {self.filler!r}')

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> Sequences:
        """Draw examples. Equal arguments give equal examples; train and test are distinct streams of one seed.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, a seed that is no integer.
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "mqar")
        middle = self.vocabulary // 2
        keys = 1 + distinct(examples, self.pairs, middle - 1, generator)
        values = middle + distinct(examples, self.pairs, self.vocabulary - middle, generator)
        slots = torch.arange(1, self.length // 2 - self.pairs + 1, dtype=torch.float64)
        asked = 2 * self.pairs + 2 * weighted(examples, self.pairs, slots ** (self.power - 1), generator)

        tokens = torch.zeros(examples, self.length, dtype=torch.int64)
        tokens[:, 0 : 2 * self.pairs : 2] = keys
        tokens[:, 1 : 2 * self.pairs : 2] = values
        tokens.scatter_(1, asked, keys)
        targets = torch.full_like(tokens, IGNORED).scatter_(1, asked, values)
        if self.filler == "random":
            noise = torch.randint(self.vocabulary, tokens.shape, generator=generator)
            tokens = torch.where(tokens == 0, noise, tokens)
        return Sequences(tokens, targets)


def _standard(*parts: tuple[int, int, int]) -> tuple[tuple[MQAR, int], ...]:
    return tuple((MQAR(8192, length, pairs), examples) for length, pairs, examples in parts)


#: The benchmark's training mixture: tasks and how many examples of each.
STANDARD_TRAIN = _standard((64, 4, 100_000), (128, 8, 20_000), (256, 16, 20_000), (256, 32, 20_000), (256, 64, 20_000))

#: The benchmark's test slices; accuracy is reported for each.
STANDARD_TEST = _standard(
    (64, 4, 1000), (64, 8, 1000), (64, 16, 1000), (128, 32, 1000), (256, 64, 1000), (512, 128, 1000), (1024, 256, 1000)
)
