"""States of several layers as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from windeye.memory.state import State


@dataclass
class HybridState:
    """A state per layer, of whatever kinds; every operation applies to all. Implements `windeye.memory.State`."""

    layers: list[State]

    @property
    def seen(self) -> Int[Tensor, " batch"]:
        return self.layers[0].seen

    @property
    def nbytes(self) -> int:
        return sum(state.nbytes for state in self.layers)

    def _map(self, change: Callable[[State], State]) -> Self:
        return type(self)([change(state) for state in self.layers])

    def detach(self) -> Self:
        return self._map(lambda state: state.detach())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        return self._map(lambda state: state.to(device, dtype))

    def select(self, index: Int[Tensor, " chosen"]) -> Self:
        return self._map(lambda state: state.select(index))

    def repeat(self, times: int) -> Self:
        return self._map(lambda state: state.repeat(times))

    def reorder(self, index: Int[Tensor, " batch"]) -> None:
        for state in self.layers:
            state.reorder(index)

    def crop(self, tokens: int) -> Self:
        return self._map(lambda state: state.crop(tokens))

    def check_integrity(self) -> None:
        assert self.layers, "there are no layers"
        for state in self.layers:
            state.check_integrity()
            assert torch.equal(state.seen.cpu(), self.seen.cpu()), "layers have seen different numbers of tokens"
