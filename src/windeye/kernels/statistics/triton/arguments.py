"""What the kernels take beside what those of softmax attention take, in named groups. None is what is not asked for."""

from __future__ import annotations

from typing import NamedTuple

import torch

from windeye.kernels.softmax.triton.arguments import Lists, Relation, Side


class Number(NamedTuple):
    """A number as the sum of two floats: a launch passes no doubles."""

    high: float
    low: float


class Bias(NamedTuple):
    """Added to every logit of a key: [batch, heads, keys] by its strides; keys are dense."""

    base: torch.Tensor
    batch: int
    head: int


class Logits(NamedTuple):
    """What becomes of dot products: ``factor`` times them in units of log 2, or ``cap tanh(factor ...)``."""

    factor: Number
    cap: Number | None
    bias: Bias | None
    hidden: torch.Tensor | None
    """[batch, keys], not 0 for padding."""
    offset: int
    """Position of the first query among the keys."""


class Visits(NamedTuple):
    """A relation cut into boxes."""

    queries: Side
    keys: Side
    of_queries: Lists
    of_keys: Lists
    relation: Relation
    """Tables of a pattern; or first and beyond last key of each run [batch, runs, queries], and how many runs."""
    each: int
    """Numbers of the relation from one batch entry to the next; 0 where all are alike."""
    apart: int
    """1 where each batch entry has lists of its own, one after the other; else 0."""


class Lags(NamedTuple):
    """Distances that count, both ends included."""

    low: int
    high: int


class Features(NamedTuple):
    """Functions of the key, [batch, keys, size]; 0 leads to the next batch entry where all are alike."""

    base: torch.Tensor
    batch: int
    size: int


class Tables(NamedTuple):
    """Functions of the distance [tables, distances] from distance ``first`` on, beyond either end the end's value, and
    the distances [tables, 2] up to and from which that holds."""

    base: torch.Tensor
    ends: torch.Tensor
    first: int
    distances: int


class Sums(NamedTuple):
    """What a row pass writes, dense [batch, queries, heads, ...]."""

    lse: torch.Tensor
    mass: torch.Tensor | None
    entropy: torch.Tensor | None
    squares: torch.Tensor | None
    distance: torch.Tensor | None
    most: torch.Tensor | None
    features: torch.Tensor
    tables: torch.Tensor
    top_weight: torch.Tensor
    top_key: torch.Tensor


class Pulls(NamedTuple):
    """What gradients are given of each row, dense [batch, queries, heads, ...]: see csrc/statistics_problem.h."""

    lse: torch.Tensor
    constant: torch.Tensor
    entropy: torch.Tensor | None
    squares: torch.Tensor | None
    distance: torch.Tensor | None
    features: torch.Tensor
    tables: torch.Tensor
