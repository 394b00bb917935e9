"""The state of a short causal convolution: its last inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.memory.tensors import TensorState, latest


@dataclass
class ConvolutionState(TensorState):
    """The ``kernel_size - 1`` inputs before the next one, newest last; zeros stand before the first token.

    Differs from: the official code of Based, which keeps one more than is read.
    """

    inputs: Float[Tensor, "batch places channels"]

    @classmethod
    def empty(cls, x: Float[Tensor, "batch _ channels"], kernel_size: int) -> Self:
        """A state before the first token, for inputs like these."""
        seen = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        return cls(seen, x.new_zeros(x.shape[0], kernel_size - 1, x.shape[-1]))

    def append(self, x: Float[Tensor, "batch n channels"], lengths: Int[Tensor, " batch"] | None = None) -> Self:
        """The state after these inputs; with ``lengths``, after the first so many of each sequence."""
        new = x.shape[1]
        trailing = None if lengths is None else new - lengths
        inputs = latest(torch.cat((self.inputs, x), dim=1), self.inputs.shape[1], trailing)
        return type(self)(self.seen + (new if lengths is None else lengths), inputs)
