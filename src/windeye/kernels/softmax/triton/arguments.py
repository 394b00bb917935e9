"""What the kernels take, in named groups."""

from __future__ import annotations

from typing import NamedTuple

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
    residue classes there are ``row`` boxes; those at the rim may hold fewer tokens, or none."""

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


class Lists(NamedTuple):
    """For each box those it meets: ``other[begin:middle]`` whole, ``other[middle:end]`` in part."""

    begin: torch.Tensor
    middle: torch.Tensor
    other: torch.Tensor


class Relation(NamedTuple):
    """The interval tables: first keys, how many positions they span, and where each table begins, its length and
    step."""

    start: torch.Tensor
    span: torch.Tensor
    place: torch.Tensor


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
