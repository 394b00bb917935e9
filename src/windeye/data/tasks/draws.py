"""Draws without replacement, for many rows at once."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def distinct(rows: int, count: int, total: int, generator: torch.Generator) -> Int64[Tensor, "rows count"]:
    """In each row ``count`` distinct numbers of ``0 .. total - 1`` in random order; every ordered choice is as likely.

    Floyd's algorithm: ``count`` steps and no memory that grows with ``total``, which a vocabulary can make large.

    Example:
        >>> drawn = distinct(3, 5, 5, torch.Generator().manual_seed(0))
        >>> drawn.sort(dim=1).values.tolist()[0]
        [0, 1, 2, 3, 4]
    """
    chosen = torch.empty(rows, count, dtype=torch.int64)
    for i in range(count):
        last = total - count + i
        drawn = torch.randint(last + 1, (rows,), generator=generator)
        taken = (chosen[:, :i] == drawn.unsqueeze(1)).any(dim=1)
        chosen[:, i] = torch.where(taken, last, drawn)
    return chosen.gather(1, shuffled(rows, count, generator))


def shuffled(rows: int, count: int, generator: torch.Generator) -> Int64[Tensor, "rows count"]:
    """In each row ``0 .. count - 1`` in random order."""
    return torch.rand(rows, count, generator=generator, dtype=torch.float64).argsort(dim=1)


def weighted(
    rows: int, count: int, weights: Float64[Tensor, " total"], generator: torch.Generator
) -> Int64[Tensor, "rows count"]:
    """In each row ``count`` distinct numbers, drawn one after the other in proportion to the weights that are left.

    An exponential race: with arrival times ``E_i / w_i`` the first to arrive is ``i`` with probability proportional to
    ``w_i``, and by the lack of memory of the exponential so are the second among the rest, and the third.
    """
    times = torch.rand(rows, len(weights), generator=generator, dtype=torch.float64)
    arrivals = -torch.log1p(-times) / weights
    return arrivals.topk(count, dim=1, largest=False, sorted=True).indices
