"""The state of attention within segments whose memory is older than they are (Titans MAC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.recurrence.problem import state_dtype
from windeye.memory.tensors import TensorState


@dataclass
class SegmentState(TensorState):
    """Keys and values of the running segment, and the weights of the memory when it began.

    The newest token stands last; places in front of a row with fewer tokens are zero.
    """

    key: Float[Tensor, "batch places kv_heads head_dim"]
    value: Float[Tensor, "batch places kv_heads head_dim"]
    weights: Float[Tensor, "batch memory_heads numbers"]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The weights stay in float32 (float64 for float64)."""
        moved = super().to(device, dtype)
        if dtype is not None:
            moved.weights = self.weights.to(device=device, dtype=state_dtype(dtype))
        return moved

    def check_integrity(self) -> None:
        super().check_integrity()
        assert self.key.shape[1] == self.value.shape[1], "there are not as many keys as values"
        assert (self.seen[:, None] >= self.key.shape[1]).any() or self.key.shape[1] == 0, "more keys than tokens"
