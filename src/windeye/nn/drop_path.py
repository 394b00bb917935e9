"""Blocks left out at random while training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves a branch out for a share of the batch entries, and scales the others up (stochastic depth); in training.

    Example:
        >>> import torch
        >>> sorted(DropPath(0.5)(torch.ones(100, 1)).unique().tolist())
        [0.0, 2.0]
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        if not self.training or self.rate == 0.0:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1.0 - self.rate)
        return x * (kept / (1.0 - self.rate))

    def extra_repr(self) -> str:
        return f"{self.rate:g}"
