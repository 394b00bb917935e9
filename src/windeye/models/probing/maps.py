"""Reading the maps of a pool: how alike they are, how wide they look, and which of them look at the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

ROUNDS = 50


def overlap(maps: Float[Tensor, "batch maps *grid"]) -> float:
    """Mean cosine between two different maps of an entry: 1 where all look at the same, 0 where no token is shared, and
    for a single map. Better separated maps went with better accuracy in the efficient-probing study.

    Example:
        >>> overlap(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]]))
        0.3333333333333333
    """
    count = maps.shape[1]
    if count < 2:
        return 0.0
    towards = F.normalize(maps.flatten(2).double(), dim=2)
    # The sum over all pairs is the square of the sum; a map with itself has a cosine of one.
    total = towards.sum(dim=1).square().sum(dim=1) - towards.square().sum(dim=(1, 2))
    return total.mean().item() / (count * (count - 1))


def evenness(maps: Float[Tensor, "batch maps *grid"]) -> float:
    """Mean entropy of maps over that of a look at all tokens alike: 1 is the mean of all tokens, 0 is one token.

    Example:
        >>> evenness(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]))
        0.5
    """
    rows = maps.flatten(2).double()
    if rows.shape[2] < 2:
        return 1.0
    shares = rows / rows.sum(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.special.entr(shares).sum(dim=2).mean().item() / math.log(rows.shape[2])


def groups(maps: Float[Tensor, "batch maps *grid"], count: int) -> Int64[Tensor, " maps"]:
    """Which of ``count`` groups each map belongs to: maps whose looks over all entries point the same way are together
    (k-means by cosine, begun with maps as far apart as possible; the same maps give the same groups).

    Groups are numbered by size, the largest first; fewer maps than groups are a group each.

    Example:
        >>> groups(torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]]), count=2)
        tensor([0, 0, 1])
    """
    points = F.normalize(maps.transpose(0, 1).flatten(1).double(), dim=1)
    count = min(count, len(points))
    chosen = [int((points @ points.sum(dim=0)).argmax())]
    while len(chosen) < count:
        chosen.append(int((points @ points[chosen].T).amax(dim=1).argmin()))
    centres, found = points[chosen], torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T).argmax(dim=1)
        if torch.equal(nearest, found):
            break
        found = nearest
        sums = torch.zeros_like(centres).index_add_(0, found, points)
        empty = sums.norm(dim=1, keepdim=True) == 0
        centres = torch.where(empty, centres, F.normalize(sums, dim=1))
    sizes = torch.bincount(found, minlength=count)
    return sizes.argsort(descending=True, stable=True).argsort()[found].cpu()
