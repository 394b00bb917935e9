"""A text split into train and test, and windows of it with next-token targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from windeye.data.sequences import IGNORED, Sequences, Split, check_integer, generator_for

Tokens = Shaped[Tensor, " tokens"]


def random_windows(
    stretches: Tokens | Sequence[Tokens], length: int, count: int, generator: torch.Generator
) -> Int64[Tensor, "count length"]:
    """Windows at random places, every place as likely; none crosses from one stretch into the next.

    Raises:
        ValueError: no stretch is as long as a window.
    """
    parts = [stretches] if isinstance(stretches, Tensor) else list(stretches)
    places = torch.tensor([max(len(part) - length + 1, 0) for part in parts])
    ends = places.cumsum(0)
    if not len(parts) or ends[-1] == 0:
        longest = max((len(part) for part in parts), default=0)
        raise ValueError(f"a window of {length} tokens does not fit: the longest stretch of text has {longest}")
    drawn = torch.randint(int(ends[-1]), (count,), generator=generator)
    which = torch.searchsorted(ends, drawn, right=True)
    starts = drawn - (ends - places)[which]
    windows = torch.empty(count, length, dtype=torch.int64)
    for index in torch.unique(which).tolist():
        mine = which == index
        windows[mine] = parts[index][starts[mine].unsqueeze(1) + torch.arange(length)].long()
    return windows


@dataclass(frozen=True, eq=False)
class Text:
    """Tokens of a text in contiguous stretches, those to train on and those held out.

    Example:
        >>> text = Text.split(torch.arange(100), held_out=0.1, stretches=2)
        >>> [part.tolist() for part in text.test]
        [[45, 46, 47, 48, 49], [95, 96, 97, 98, 99]]
    """

    train: tuple[Tokens, ...]
    test: tuple[Tokens, ...]

    @classmethod
    def split(cls, tokens: Tokens, held_out: float = 0.05, stretches: int = 1) -> Text:
        """Cut a text into equal stretches and hold out the tail of each.

        Several stretches make the held-out part a fair sample of a text that changes on its way (a dictionary ends with
        Z), and still no window of the one touches the other.

        Raises:
            ValueError: a share outside (0, 1), or stretches so short that one of the two parts is empty.
        """
        check_integer("stretches", stretches, 1)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be a share in (0, 1), got {held_out}")
        borders = [len(tokens) * i // stretches for i in range(stretches + 1)]
        train, test = [], []
        for begin, end in pairwise(borders):
            middle = end - round(held_out * (end - begin))
            if not begin < middle < end:
                raise ValueError(
                    f"held_out {held_out} of a stretch of {end - begin} tokens leaves a part empty; "
                    f"take fewer stretches than {stretches} or another share"
                )
            train.append(tokens[begin:middle])
            test.append(tokens[middle:end])
        return cls(tuple(train), tuple(test))

    def windows(self, length: int) -> Windows:
        """Windows of ``length`` tokens with the next tokens as targets.

        Raises:
            ValueError, TypeError: a length below 1.
        """
        check_integer("length", length, 1)
        return Windows(self, length)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a text: at random for training, one after the other for a score that counts every token once."""

    text: Text
    length: int

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> Sequences:
        """Windows at random places of the split's stretches.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, no stretch with ``length + 1`` tokens.
        """
        check_integer("examples", examples, 0)
        generator = generator_for(seed, split, "windows")
        windows = random_windows(getattr(self.text, split), self.length + 1, examples, generator)
        return Sequences(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())

    def cover(self, batch_size: int, split: Split = "test") -> Iterator[Sequences]:
        """Batches in which every token of the split but each stretch's first is the target exactly once.

        The last window of a stretch is filled up with token 0 and ignored targets.

        Example:
            >>> text = Text(train=(), test=(torch.arange(6),))
            >>> [batch.targets.tolist() for batch in text.windows(3).cover(batch_size=2)]
            [[[1, 2, 3], [4, 5, -100]]]
        """
        check_integer("batch_size", batch_size, 1)
        tokens, targets = [], []
        for part in getattr(self.text, split):
            count = -(-(len(part) - 1) // self.length)
            rows = torch.zeros(2, count * self.length, dtype=torch.int64)
            rows[1] = IGNORED
            rows[0, : len(part) - 1], rows[1, : len(part) - 1] = part[:-1], part[1:]
            tokens.append(rows[0].reshape(count, self.length))
            targets.append(rows[1].reshape(count, self.length))
        batches = (torch.split(torch.cat(rows), batch_size) for rows in (tokens, targets))
        yield from map(Sequences, *batches)
