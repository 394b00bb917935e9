"""What networks are given instead of colours from 0 to 1."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""What is taken off red, green and blue, and what they are divided by."""

SCALINGS: dict[str, Colours] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0,), (1.0,)),
    "symmetric": ((0.5,), (0.5,)),
}
"""By name: the mean and deviation of ImageNet, which the published backbones were trained with; 0 to 1; and -1 to 1."""


def scaled(x: Float[Tensor, "batch channels h w"], scaling: str | Colours) -> Float[Tensor, "batch channels h w"]:
    """Pixels from 0 to 1, scaled by one of `SCALINGS`, or by a mean and a deviation.

    Example:
        >>> import torch
        >>> scaled(torch.tensor([0.0, 0.75]).reshape(1, 1, 1, 2), "symmetric").flatten()
        tensor([-1.0000,  0.5000])
    """
    found = SCALINGS[scaling] if isinstance(scaling, str) else scaling
    mean, deviation = (x.new_tensor(values).reshape(1, -1, 1, 1) for values in found)
    return (x - mean) / deviation
