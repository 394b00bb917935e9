"""The state of a memory that learns while it reads: the weights of its networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.kernels.associative.problem import FastWeights
from windeye.kernels.recurrence.problem import state_dtype
from windeye.memory.tensors import TensorState


@dataclass
class AssociativeState(TensorState):
    """What `windeye.associative_memory` returns as its state, and how many tokens went into it.

    Example:
        >>> import windeye
        >>> x = torch.randn(1, 5, 2, 4)
        >>> gate = torch.full((1, 5, 2), 0.1)
        >>> _, memory = windeye.associative_memory(x, x, x, [torch.zeros(2, 4, 4)], step_size=gate, return_state=True)
        >>> AssociativeState.of(torch.tensor([5]), memory).weights.shape
        torch.Size([1, 2, 16])
    """

    anchor: Float[Tensor, "batch heads numbers"]
    weights: Float[Tensor, "batch heads numbers"]
    momentum: Float[Tensor, "batch heads numbers"]
    place: Int[Tensor, " batch"]
    """Tokens of the running chunk; ``seen`` does not tell, for other tokens may have stood before the first."""

    @classmethod
    def of(cls, seen: Int[Tensor, " batch"], memory: FastWeights) -> Self:
        return cls(seen, *memory)

    @property
    def memory(self) -> FastWeights:
        """As `windeye.associative_memory` takes it."""
        return FastWeights(self.anchor, self.weights, self.momentum, self.place)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Weights that are sums over thousands of tokens stay in float32 (float64 for float64)."""
        return super().to(device, None if dtype is None else state_dtype(dtype))

    def check_integrity(self) -> None:
        super().check_integrity()
        assert (self.place >= 0).all(), "a place in a chunk is negative"
        for name in ("anchor", "weights", "momentum"):
            finite = getattr(self, name).isfinite().all(-1)
            assert finite.all(), f"{name} of (sequence, head) {(~finite).nonzero()[0].tolist()} is not finite"
