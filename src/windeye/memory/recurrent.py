"""The state of linear attention: a matrix per head, whatever the length of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.recurrence.problem import state_dtype
from windeye.memory.tensors import TensorState


@dataclass
class RecurrentState(TensorState):
    """What `windeye.linear_attention` returns as its state, and how many tokens went into it.

    Example:
        >>> state = RecurrentState(torch.tensor([7]), torch.zeros(1, 2, 4, 4))
        >>> state.to(dtype=torch.bfloat16).matrix.dtype
        torch.float32
    """

    matrix: Float[Tensor, "batch heads features columns"]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Sums over thousands of tokens stay in float32 (float64 for float64)."""
        return super().to(device, None if dtype is None else state_dtype(dtype))
