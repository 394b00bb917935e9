"""Two maps of the same shape, compared row by row."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.slab import RowSlab, slabs


def divergence(first: Scores, second: Scores, kind: Literal["kl", "js"]) -> Float[Tensor, "batch queries heads"]:
    """See `windeye.divergence`; both see the same keys."""
    parts = []
    for rows in slabs(first):
        if first.needs_grad or second.needs_grad:
            parts.append(checkpoint(_of_rows, first, second, rows, kind, use_reentrant=False))
        else:
            parts.append(_of_rows(first, second, rows, kind))
    return torch.cat(parts, dim=2).transpose(1, 2)


def _of_rows(first: Scores, second: Scores, rows: slice, kind: str) -> Float[Tensor, "batch heads rows"]:
    one, other = (RowSlab(scores, rows, scores.logits(rows)) for scores in (first, second))
    if kind == "kl":
        return (one.weights * (one.log_weights - other.log_weights)).sum(dim=-1)
    # Unseen keys have logarithm 0 in both, and weight 0.
    middle = torch.logaddexp(one.log_weights, other.log_weights) - math.log(2)
    each = (slab.weights * (slab.log_weights - middle) for slab in (one, other))
    return sum(each).sum(dim=-1) / 2  # type: ignore[union-attr]
