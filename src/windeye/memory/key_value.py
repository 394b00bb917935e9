"""Keys and values of the past: all of them, or those of a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.memory.buffer import Buffer, may_append
from windeye.memory.tensors import TensorState, latest


@dataclass
class KeyValueState(TensorState):
    """The cache of softmax attention. The newest token of each sequence stands last, so that sequences of different
    lengths stay aligned with the queries that follow; a shorter one has hidden places in front.

    Without a window, and where no gradients are taken, tokens are written behind those of the state that is continued,
    into memory that doubles when it is full; ``nbytes`` counts the tokens, which are at least half of it. Each state
    sees its own tokens only, so it can still be continued more than once: the second time copies.

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

    def __post_init__(self) -> None:
        # No fields, so that states derived from this one start without: a buffer is of these very tensors.
        self._buffers: tuple[Buffer | None, Buffer | None] = (None, None)

    @property
    def hidden(self) -> Bool[Tensor, "batch places"]:
        """Places in front of a sequence that is shorter than the cache."""
        places = self.key.shape[1]
        return torch.arange(places, device=self.key.device) < places - self.seen[:, None]

    def followed_by(
        self, key: Float[Tensor, "batch new kv_heads head_dim"], value: Float[Tensor, "batch new kv_heads value_dim"]
    ) -> Self:
        """Everything that queries of these tokens may see, the tokens themselves last; `settled` makes it a state."""
        held, new = (self.key, self.value), (key, value)
        after = replace(self, seen=self.seen + key.shape[1])
        if self._grows_in_place(key, value):
            keys, values = (Buffer.append(*three) for three in zip(self._buffers, held, new, strict=True))
            after.key, after.value, after._buffers = keys.view, values.view, (keys, values)
        else:
            after.key, after.value = (torch.cat(pair, dim=1) for pair in zip(held, new, strict=True))
        return after

    def settled(self, new: int, lengths: Int[Tensor, " batch"] | None = None) -> Self:
        """Of what `followed_by` gave with ``new`` tokens, what later queries need; with ``lengths`` only the first so
        many of the new tokens are true."""
        places = self.key.shape[1]
        kept = places if self.window is None else min(places, self.window - 1)
        if kept == places and lengths is None:
            return self
        trailing = None if lengths is None else new - lengths
        seen = self.seen if trailing is None else self.seen - trailing
        key, value = (latest(t, kept, trailing) for t in (self.key, self.value))
        return replace(self, seen=seen, key=key, value=value)

    def append(self, key: Tensor, value: Tensor, lengths: Int[Tensor, " batch"] | None = None) -> Self:
        """The state after these tokens; with ``lengths``, after the first so many of each sequence."""
        return self.followed_by(key, value).settled(key.shape[1], lengths)

    def _grows_in_place(self, key: Tensor, value: Tensor) -> bool:
        """A window drops tokens, and is copied as a whole."""
        return self.window is None and may_append(self.key, key) and may_append(self.value, value)

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
