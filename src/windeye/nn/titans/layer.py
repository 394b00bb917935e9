"""Titans MAL: memory as a layer."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.memory import HybridState, State
from windeye.nn.attention import CausalAttention
from windeye.nn.mixer import SequenceMixer, expect
from windeye.nn.norms import norm_of
from windeye.nn.titans.memory import NeuralMemory


class MemoryAsLayer(SequenceMixer):
    """The memory first, then attention in a window over what it says, each with a residual around it::

        m = memory([p; x])          out = m + SWA(norm([p; x] + m))

    ``p`` are learned tokens before the first one: the memory reads them first, and every query of the attention sees
    what became of them. ``residual=False`` is the bare formula ``SWA(m)``, in which a token hears its own memory only
    through attention.

    Args:
        attention: over a window; its channels are those of the memory.
        memory: without persistent tokens of its own.
        persistent: how many learned tokens stand in front.
        residual: see above.

    Raises:
        ValueError: widths differ, or the memory has persistent tokens of its own.

    Source: titans spec, section 5, which leaves open where residuals are. With the bare formula, recall was not learned
    in a budget in which the memory alone learned it.

    Example:
        >>> layer = MemoryAsLayer(CausalAttention(32, 4, window=8), NeuralMemory(32, 2), persistent=4)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(
        self, attention: CausalAttention, memory: NeuralMemory, persistent: int = 0, *, residual: bool = True
    ) -> None:
        super().__init__(attention.dim)
        self.attention, self.memory = attention, memory
        self.norm = norm_of("rms", attention.dim, 1e-6) if residual else None
        self.persistent = persistent_tokens(persistent, attention, memory)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        past = expect(state, HybridState)
        prefix, fresh = self.memory.begin(self.persistent, x.shape[0])
        window, before = (None, fresh) if past is None else past.layers
        said, memory = self.memory.mix(x, lengths, before)
        if self.norm is None:
            out, window = self.attention.mix(said, lengths, window, prefix)
            return out, HybridState([window, memory])
        if prefix is not None and self.persistent is not None:
            prefix = self.norm(self.persistent + prefix)
        out, window = self.attention.mix(self.norm(x + said), lengths, window, prefix)
        return said + out, HybridState([window, memory])

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
