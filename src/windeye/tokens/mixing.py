"""Keys that are learned mixtures of positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mix(
    x: Float[Tensor, "batch *positions heads width"], weights: Float[Tensor, "*shared keys positions"]
) -> Float[Tensor, "batch keys heads width"]:
    """``out_k = sum_p weights[k, p] x_p``, positions row-major; ``weights`` may have a head axis, or batch and heads,
    in front.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 2, 2, 1, 1)
        >>> mix(x, torch.full((1, 4), 0.25)).flatten()
        tensor([1.5000])
    """
    flat = x.flatten(1, -3)
    if weights.dim() == 2:
        # One product for the whole batch.
        mixed = F.linear(flat.flatten(2).transpose(1, 2), weights).transpose(1, 2)
        return torch.unflatten(mixed, 2, flat.shape[2:])
    if weights.dim() == 3:
        return torch.einsum("hkp,bphw->bkhw", weights, flat)
    return torch.einsum("bhkp,bphw->bkhw", weights, flat)
