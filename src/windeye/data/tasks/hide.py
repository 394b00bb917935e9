"""Short strings hidden in long ones: the layout that passkey and needle tasks share."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from windeye.data.tasks.draws import distinct

DIGIT_0 = ord("0")


def cuts_at_random(rows: int, count: int, length: int, generator: torch.Generator) -> Int64[Tensor, "rows count"]:
    """Sorted places ``0 .. length`` at which a string is cut to insert ``count`` others; places may coincide.

    Every arrangement of haystack tokens and insertions is as likely.
    """
    return distinct(rows, count, length + count, generator).sort(dim=1).values - torch.arange(count)


def hide(
    haystack: Int64[Tensor, "rows hay"], needles: Int64[Tensor, "rows count size"], cuts: Int64[Tensor, "rows count"]
) -> Int64[Tensor, "rows total"]:
    """Insert needle ``i`` of a row where the row's haystack is cut, in order; ``total = hay + count * size``.

    Example:
        >>> hay, needle = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[[8, 9]]])
        >>> hide(hay, needle, torch.tensor([[3]])).tolist()
        [[1, 2, 3, 8, 9, 4]]
    """
    rows, count, size = needles.shape
    out = torch.empty(rows, haystack.shape[1] + count * size, dtype=torch.int64)
    starts = cuts + size * torch.arange(count)
    places = (starts.unsqueeze(-1) + torch.arange(size)).flatten(1)
    free = torch.ones_like(out, dtype=torch.bool).scatter_(1, places, False)
    out[free] = haystack.flatten()
    return out.scatter_(1, places, needles.flatten(1))


def cuts_at(
    depth: float | None, rows: int, count: int, length: int, generator: torch.Generator
) -> Int64[Tensor, "rows count"]:
    """At random, or all at one depth: 0 is the beginning of the haystack, 1 its end."""
    if depth is None:
        return cuts_at_random(rows, count, length, generator)
    return torch.full((rows, count), round(depth * length))


def check_depth(depth: float | None, insertions: int) -> None:
    if depth is None:
        return
    if not 0 <= depth <= 1:
        raise ValueError(f"depth must be in [0, 1] or None for a random place, got {depth}")
    if insertions > 1:
        raise ValueError(f"depth places one insertion, got {insertions}; leave it at None for random places")


def as_tokens(text: bytes) -> Int64[Tensor, " size"]:
    """One token a byte."""
    return torch.tensor(list(text), dtype=torch.int64)


def digits(rows: int, count: int, size: int, generator: torch.Generator) -> Int64[Tensor, "rows count size"]:
    """Random decimal digits as bytes."""
    return DIGIT_0 + torch.randint(10, (rows, count, size), generator=generator)
