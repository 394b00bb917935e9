"""Reading a class off the nearest features, with nothing to train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from windeye.nn.mixer import check_count

MOST = 2**24
"""Cosines that are held at once."""


@torch.no_grad()
def nearest_vote(
    known: Float[Tensor, "known dim"],
    labels: Int64[Tensor, " known"],
    asked: Float[Tensor, "asked dim"],
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
) -> Float[Tensor, "asked classes"]:
    """Votes for each class: a neighbour of cosine ``s`` has ``exp(s / temperature)`` of them, shares of all votes.

    Args:
        known, labels: features and their classes.
        asked: features whose class is asked for.
        neighbours: how many of the nearest vote; of fewer known ones all.
        temperature: the lower, the more the nearest decide. The study sweeps 0.07, 0.1 and 0.2, and of neighbours 5 to
            200.
        classes: how many there are; default those in ``labels``.

    Raises:
        ValueError: shapes or settings that do not fit.

    Source: efficient-probing spec.

    Example:
        >>> known, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> nearest_vote(known, labels, torch.tensor([[2.0, 0.0]]), neighbours=1)
        tensor([[1., 0.]])
        >>> nearest_vote(known, labels, torch.tensor([[2.0, 0.0]]), neighbours=3, temperature=1.0).argmax()
        tensor(1)
    """
    check_count("neighbours", neighbours)
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if known.dim() != 2 or asked.dim() != 2 or known.shape[1] != asked.shape[1]:
        raise ValueError(
            f"known and asked must be [known, dim] and [asked, dim], got {tuple(known.shape)} and {tuple(asked.shape)}"
        )
    if labels.shape != known.shape[:1] or not len(labels):
        raise ValueError(f"labels must be one for each of {known.shape[0]} known features, got {tuple(labels.shape)}")
    count = int(labels.max()) + 1 if classes is None else classes
    if not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ValueError(f"labels must be in [0, {count}), got {int(labels.min())} to {int(labels.max())}")
    towards, most = F.normalize(known, dim=1), min(neighbours, len(known))
    votes = []
    for part in torch.split(F.normalize(asked, dim=1), max(1, MOST // len(known))):
        similar, who = (part @ towards.T).topk(most, dim=1)
        shares = (similar.to(known.dtype) / temperature).softmax(dim=1)  # the same winner, and nothing overflows
        votes.append(shares.new_zeros(len(part), count).scatter_add_(1, labels[who], shares))
    return torch.cat(votes) if votes else known.new_zeros(0, count)
