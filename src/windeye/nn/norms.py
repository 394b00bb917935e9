"""Normalisation of token vectors."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["simple_rms", "rms", "layer", "none"]
MapNorm = Literal["layer", "batch", "none"]


class SimpleRMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x^2) + eps)``, without parameters (TransNormerLLM).

    Example:
        >>> import torch
        >>> SimpleRMSNorm(2)(torch.tensor([-30.0, 40.0]))
        tensor([-0.8485,  1.1314])
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps, elementwise_affine=False)


class RMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x^2) + eps) * weight``, in the type of the weight: autocast hands over narrower inputs."""

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return super().forward(x.to(self.weight.dtype))


def norm_of(kind: Norm, dim: int, eps: float) -> nn.Module:
    """A norm by its name in a configuration.

    Raises:
        ValueError: an unknown name.
    """
    if kind == "simple_rms":
        return SimpleRMSNorm(dim, eps)
    if kind == "rms":
        return RMSNorm(dim, eps)
    if kind == "layer":
        return nn.LayerNorm(dim, eps)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {kind!r}")


class ChannelsLastBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of maps [batch, height, width, dim]."""

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def map_norm_of(kind: MapNorm, dim: int, eps: float) -> nn.Module:
    """A norm of maps, channels last, by its name in a configuration.

    Raises:
        ValueError: an unknown name.
    """
    if kind == "layer":
        return nn.LayerNorm(dim, eps)
    if kind == "batch":
        return ChannelsLastBatchNorm(dim, eps)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm must be one of {', '.join(get_args(MapNorm))}, got {kind!r}")
