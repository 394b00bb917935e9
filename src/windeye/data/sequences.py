"""Token sequences with targets, and how they are dealt into batches.

A batch source is a function of the step, ``batches(step) -> Sequences``: which examples step 700 sees follows from the
seed alone, so a run that was interrupted goes on with exactly the batches that it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

#: Target of a position that is not judged; what ``torch.nn.functional.cross_entropy`` ignores by default.
IGNORED = -100

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class Sequences(NamedTuple):
    """Tokens, and at each position the token that should be predicted there, or `IGNORED`.

    Targets are aligned with the model's output: no shift is left to do.
    """

    tokens: Int64[Tensor, "examples length"]
    targets: Int64[Tensor, "examples length"]


class Sampler(Protocol):
    """What draws examples: the ``sample`` of a task or of a text."""

    def __call__(self, examples: int, *, seed: int, split: Split) -> Sequences: ...


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from several parts: streams whose parts differ anywhere are unrelated.

    Example:
        >>> derived_seed(0, "train") == derived_seed(0, "test")
        False
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, split: Split, task: str) -> torch.Generator:
    """The generator from which one call draws everything; train and test never share a stream.

    Raises:
        ValueError: unknown split. TypeError: a seed that is not an integer.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    check_integer("seed", seed)
    return torch.Generator().manual_seed(derived_seed(task, split, seed))


def check_integer(name: str, value: object, least: int | None = None) -> None:
    """Refuse what is not an integer, or is below ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class Fresh:
    """Batches of examples that are never seen twice: each step draws its own.

    Args:
        sample: a task's or a text's ``sample``.
        batch_size: examples in a batch.
        seed: another seed is another stream of batches.
        split: "train" and "test" streams are distinct for equal seeds.

    Example:
        >>> from windeye.data.tasks import MQAR
        >>> batches = Fresh(MQAR(length=64, pairs=4).sample, batch_size=8, seed=1)
        >>> batches(700).tokens.shape, torch.equal(batches(700).tokens, batches(700).tokens)
        (torch.Size([8, 64]), True)
    """

    sample: Sampler
    batch_size: int
    seed: int = 0
    split: Split = "train"

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed)

    def __call__(self, step: int) -> Sequences:
        return self.sample(self.batch_size, seed=derived_seed("fresh", self.seed, step), split=self.split)


class Epochs:
    """A fixed set of examples, gone through again and again, each time in another order.

    The set may have segments of different lengths (the standard MQAR mixture): a batch holds one length, and the
    batches of all segments are mixed. The last batch of a segment may be small; nothing is dropped.

    Args:
        segments: the examples, one entry per length.
        batch_size: examples in a batch, for all segments or one number for each.
        seed: decides the order.

    Example:
        >>> from windeye.data.tasks import MQAR
        >>> short, long = MQAR(length=64, pairs=4).sample(100, seed=0), MQAR(length=128, pairs=8).sample(30, seed=0)
        >>> batches = Epochs([short, long], batch_size=(50, 10))
        >>> len(batches), sorted({tuple(batches(step).tokens.shape) for step in range(5)})
        (5, [(10, 128), (50, 64)])
    """

    def __init__(self, segments: Sequence[Sequences], batch_size: int | Sequence[int], seed: int = 0) -> None:
        sizes = [batch_size] * len(segments) if isinstance(batch_size, int) else list(batch_size)
        counts = [len(segment.tokens) for segment in segments]
        if not counts or 0 in counts:
            raise ValueError(f"segments must not be empty, got {counts} examples")
        if len(sizes) != len(segments):
            raise ValueError(f"batch_size must have one number per segment, got {len(sizes)} for {len(segments)}")
        for size in sizes:
            check_integer("batch_size", size, 1)
        check_integer("seed", seed)
        self.segments, self.batch_sizes, self.seed = tuple(segments), tuple(sizes), seed
        self._plan: tuple[int, list[tuple[int, Tensor]]] = (-1, [])

    def __len__(self) -> int:
        """Batches of one epoch."""
        sizes = zip(self.segments, self.batch_sizes, strict=True)
        return sum(-(-len(segment.tokens) // size) for segment, size in sizes)

    def __call__(self, step: int) -> Sequences:
        epoch, place = divmod(step, len(self))
        if self._plan[0] != epoch:
            self._plan = (epoch, self._deal(epoch))
        index, rows = self._plan[1][place]
        segment = self.segments[index]
        return Sequences(segment.tokens[rows], segment.targets[rows])

    def _deal(self, epoch: int) -> list[tuple[int, Tensor]]:
        generator = torch.Generator().manual_seed(derived_seed("epoch", self.seed, epoch))
        dealt: list[tuple[int, Tensor]] = []
        for index, (segment, size) in enumerate(zip(self.segments, self.batch_sizes, strict=True)):
            order = torch.randperm(len(segment.tokens), generator=generator)
            dealt += [(index, rows) for rows in torch.split(order, size)]
        return [dealt[i] for i in torch.randperm(len(dealt), generator=generator).tolist()]


#: What `windeye.train.fit` trains on.
BatchSource = Callable[[int], tuple[Tensor, Tensor]]
