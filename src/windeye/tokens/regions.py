"""The best matching regions of each region, gathered."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def route(
    query: Float[Tensor, "batch regions width"], key: Float[Tensor, "batch regions_kv width"], keep: int
) -> Int[Tensor, "batch regions keep"]:
    """The ``keep`` regions whose vectors match each region's best, best first; no gradient flows through the choice.

    Raises:
        ValueError: ``keep`` is not between 1 and the number of regions.

    Example:
        >>> vectors = torch.eye(3)[None]
        >>> route(vectors, vectors, 1)
        tensor([[[0],
                 [1],
                 [2]]])
    """
    regions = key.shape[1]
    if not 1 <= keep <= regions:
        raise ValueError(f"keep must be between 1 and the {regions} regions, got {keep}")
    return (query.detach() @ key.detach().transpose(1, 2)).topk(keep, dim=-1).indices


def gather(
    regions: Float[Tensor, "batch regions_kv tokens *rest"], index: Int[Tensor, "batch_or_1 regions keep"]
) -> Float[Tensor, "batch regions keep_tokens *rest"]:
    """The tokens of each region's chosen regions, one after the other.

    Example:
        >>> tokens = torch.arange(6.0).reshape(1, 3, 2)
        >>> gather(tokens, torch.tensor([[[2, 0]]]))
        tensor([[[4., 5., 0., 1.]]])
    """
    batch = regions.shape[0]
    rows = torch.arange(batch, device=regions.device)[:, None, None]
    return regions[rows, index.expand(batch, -1, -1)].flatten(2, 3)
