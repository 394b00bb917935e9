"""Titans MAL: memory as a layer."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.memory import HybridState, State
from windeye.nn.attention import CausalAttention
from windeye.nn.mixer import SequenceMixer, expect
from windeye.nn.titans.memory import NeuralMemory


class MemoryAsLayer(SequenceMixer):
    """The memory first, then attention in a window over what it says: ``out = SWA([p_m; memory([p; x])])``.

    ``p`` are learned tokens before the first one: the memory reads them first, and every query of the attention sees
    what the memory said of them.

    Args:
        attention: over a window; its channels are those of the memory.
        memory: without persistent tokens of its own.
        persistent: how many learned tokens stand in front.

    Raises:
        ValueError: widths differ, or the memory has persistent tokens of its own.

    Source: titans spec, section 5.

    Example:
        >>> layer = MemoryAsLayer(CausalAttention(32, 4, window=8), NeuralMemory(32, 2), persistent=4)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(self, attention: CausalAttention, memory: NeuralMemory, persistent: int = 0) -> None:
        super().__init__(attention.dim)
        self.attention, self.memory = attention, memory
        self.persistent = persistent_tokens(persistent, attention, memory)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        past = expect(state, HybridState)
        prefix, fresh = self.memory.begin(self.persistent, x.shape[0])
        window, before = (None, fresh) if past is None else past.layers
        y, memory = self.memory.mix(x, lengths, before)
        out, window = self.attention.mix(y, lengths, window, prefix)
        return out, HybridState([window, memory])

    def state_bytes(self, n: int) -> int:
        return self.attention.state_bytes(n) + self.memory.state_bytes(n)


def persistent_tokens(tokens: int, attention: CausalAttention, memory: NeuralMemory) -> nn.Parameter | None:
    """Learned tokens that stand before the first one.

    Raises:
        ValueError: see `MemoryAsLayer`.
    """
    if attention.dim != memory.dim:
        raise ValueError(f"attention has dim {attention.dim} but memory has {memory.dim}")
    if memory.persistent is not None:
        raise ValueError("the memory of a block must not have persistent tokens of its own: give them to the block")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"persistent must be a number of tokens, at least 0, got {tokens!r}")
    return nn.Parameter(0.02 * torch.randn(tokens, attention.dim)) if tokens else None
