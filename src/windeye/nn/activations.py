"""Activations by their names in a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["silu", "1+elu", "sigmoid", "none"]


def activation_of(kind: Activation) -> Callable[[Tensor], Tensor]:
    """
    Raises:
        ValueError: an unknown name.
    """
    if kind == "silu":
        return F.silu
    if kind == "1+elu":
        return _one_plus_elu
    if kind == "sigmoid":
        return torch.sigmoid
    if kind == "none":
        return _identity
    raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {kind!r}")


def _one_plus_elu(x: Tensor) -> Tensor:
    return 1 + F.elu(x)


def _identity(x: Tensor) -> Tensor:
    return x
