"""What the kernels take, in named groups."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch


class View(NamedTuple):
    """A tensor [batch, three axes, heads, dim] by its strides, in elements."""

    base: torch.Tensor
    batch: int
    axis0: int
    axis1: int
    axis2: int
    head: int
    dim: int


class Side(NamedTuple):
    """The tokens of one side and their boxes. Along an axis, tokens of a box lie ``step`` apart, and of each of so many
    residue classes there are ``row`` boxes; those at the rim may hold fewer tokens, or none. Lists name a box by the
    coordinates of its first token, packed into one number: the third axis lowest, the first from ``shift0`` on."""

    tokens: int
    length0: int
    length1: int
    length2: int
    step0: int
    step1: int
    step2: int
    row0: int
    row1: int
    row2: int
    boxes: int
    boxes1: int
    boxes2: int
    shift0: int
    shift1: int
    mask1: int
    mask2: int

    @classmethod
    def of(cls, lengths: tuple[int, ...], steps: tuple[int, ...], rows: tuple[int, ...]) -> Side:
        """A grid of three axes in so many residue classes, with so many boxes of each."""
        boxes = [step * row for step, row in zip(steps, rows, strict=True)]
        second, third = (max(length - 1, 0).bit_length() for length in lengths[1:])
        return cls(
            prod(lengths), lengths[0], lengths[1], lengths[2], steps[0], steps[1], steps[2], rows[0], rows[1], rows[2],
            prod(boxes), boxes[1], boxes[2], second + third, third, (1 << second) - 1, (1 << third) - 1,
        )  # fmt: skip

    def packed(self, first: Any, second: Any, third: Any) -> Any:
        """Arrays or tensors of coordinates, in 64 bits, as lists hold them."""
        return first << self.shift0 | second << self.shift1 | third

    @property
    def narrow(self) -> bool:
        """Whether 32 bits hold what is packed."""
        return self.shift0 + max(self.length0 - 1, 0).bit_length() < 32


class Lists(NamedTuple):
    """For each box those it meets, packed: ``other[begin:middle]`` whole, ``other[middle:end]`` in part."""

    begin: torch.Tensor
    middle: torch.Tensor
    other: torch.Tensor


class Relation(NamedTuple):
    """Interval tables, as a plan holds them."""

    start: torch.Tensor
    span: torch.Tensor
    place: torch.Tensor


class Extra(NamedTuple):
    """Keys and values that every query sees beside its pattern, a sequence in boxes of as many as the others, and the
    dropout of their pairs."""

    key: View
    value: View
    side: Side
    dropout: Dropout | None


class Pulls(NamedTuple):
    """What the backward pass is given: dense [batch, queries, heads] the normalisers in units of log 2, infinite for
    queries that saw nothing, and what the gradients of logits have subtracted; and the gradients of outputs."""

    norm: torch.Tensor
    less: torch.Tensor
    grad_out: View


class Bias(NamedTuple):
    """A relative table [heads, size] in units of log 2. A token stands at ``sum_axis (coordinate // unit) stride``;
    the difference of key and query, counted from the centre, is the place in the table."""

    table: torch.Tensor
    size: int
    centre: int
    unit0: int
    unit1: int
    unit2: int
    stride0: int
    stride1: int


class Dropout(NamedTuple):
    """Pairs whose hash lies below the threshold are dropped, the others enlarged."""

    seed: torch.Tensor
    threshold: int
    enlarge: float
