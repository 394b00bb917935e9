"""Keys and values of the past: all of them, or those of a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.memory.tensors import TensorState, latest


@dataclass
class KeyValueState(TensorState):
    """The cache of softmax attention. The newest token of each sequence stands last, so that sequences of different
    lengths stay aligned with the queries that follow; a shorter one has hidden places in front.

    Example:
        >>> k, v = torch.randn(2, 1, 5, 2, 4).unbind(0)
        >>> state = KeyValueState.empty(k, v, window=3).append(k, v)
        >>> state.key.shape, state.seen
        (torch.Size([1, 2, 2, 4]), tensor([5]))
    """

    key: Float[Tensor, "batch places kv_heads head_dim"]
    value: Float[Tensor, "batch places kv_heads value_dim"]
    window: int | None = None
    """Keys that a query sees, itself counted: only ``window - 1`` are kept. None keeps all."""

    @classmethod
    def empty(cls, key: Tensor, value: Tensor, window: int | None = None) -> Self:
        """A state before the first token, for tokens like these."""
        seen = torch.zeros(key.shape[0], dtype=torch.int64, device=key.device)
        return cls(seen, key[:, :0], value[:, :0], window)

    def followed_by(
        self, key: Tensor, value: Tensor
    ) -> tuple[
        Float[Tensor, "batch keys kv_heads head_dim"],
        Float[Tensor, "batch keys kv_heads value_dim"],
        Bool[Tensor, "batch keys"],
    ]:
        """All keys and values that new tokens may see, themselves last, and which of them are hidden."""
        places = self.key.shape[1]
        # In front of a sequence that is shorter than the cache.
        hidden = torch.arange(places + key.shape[1], device=key.device) < places - self.seen[:, None]
        return torch.cat((self.key, key), dim=1), torch.cat((self.value, value), dim=1), hidden

    def append(self, key: Tensor, value: Tensor, lengths: Int[Tensor, " batch"] | None = None) -> Self:
        """The state after these tokens; with ``lengths``, after the first so many of each sequence."""
        new = key.shape[1]
        places = self.key.shape[1] + new
        if self.window is not None:
            places = min(places, self.window - 1)
        trailing = None if lengths is None else new - lengths
        return replace(
            self,
            seen=self.seen + (new if lengths is None else lengths),
            key=latest(torch.cat((self.key, key), dim=1), places, trailing),
            value=latest(torch.cat((self.value, value), dim=1), places, trailing),
        )

    def crop(self, tokens: int) -> Self:
        if self.window is not None:
            return super().crop(tokens)
        seen = self.seen.clamp(max=tokens)
        places = min(self.key.shape[1], tokens)
        key, value = (latest(t, places, self.seen - seen) for t in (self.key, self.value))
        return replace(self, seen=seen, key=key, value=value)

    def check_integrity(self) -> None:
        super().check_integrity()
        places = self.key.shape[1]
        assert places == self.value.shape[1], "there are not as many keys as values"
        wanted = self.seen if self.window is None else self.seen.clamp(max=self.window - 1)
        assert (wanted <= places).all(), "a sequence has lost keys that it still needs"
        assert self.window is None or places < self.window, "keys outlive the window"
