"""Titans MAG: memory as a gate."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from windeye.memory import HybridState, State
from windeye.nn.activations import Activation, activation_of
from windeye.nn.attention import CausalAttention
from windeye.nn.mixer import SequenceMixer, expect
from windeye.nn.norms import norm_of
from windeye.nn.titans.layer import persistent_tokens
from windeye.nn.titans.memory import NeuralMemory


class MemoryAsGate(SequenceMixer):
    """Attention in a window and the memory side by side, the memory as the gate:
    ``out = norm(SWA([p; x])) activation(norm(memory([p; x])))``.

    ``p`` are learned tokens before the first one: every query of the attention sees them, the memory reads them first.

    Args:
        attention: over a window; its channels are those of the memory.
        memory: without persistent tokens of its own.
        persistent: how many learned tokens stand in front.
        activation: of the gate.

    Raises:
        ValueError: widths differ, or the memory has persistent tokens of its own.

    Source: titans spec, section 5. The published text names normalisation and a non-linearity; which ones, it leaves
    open. A gate between 0 and 1 hardly lets the memory speak: with a sigmoid, recall was not learned in a budget in
    which SiLU learned it.

    Example:
        >>> import torch
        >>> layer = MemoryAsGate(CausalAttention(32, 4, window=8), NeuralMemory(32, 2), persistent=4)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(
        self, attention: CausalAttention, memory: NeuralMemory, persistent: int = 0, activation: Activation = "silu"
    ) -> None:
        super().__init__(attention.dim)
        self.activation = activation
        self.attention, self.memory = attention, memory
        self.persistent = persistent_tokens(persistent, attention, memory)
        self.attention_norm, self.memory_norm = (norm_of("rms", attention.dim, 1e-6) for _ in range(2))

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        past = expect(state, HybridState)
        window: State | None = None
        memory: State = self.memory.begin(self.persistent, x.shape[0])[1] if past is None else past.layers[1]
        if past is not None:
            window = past.layers[0]
        y, window = self.attention.mix(x, lengths, window, self.persistent)
        gate, memory = self.memory.mix(x, lengths, memory)
        gate = activation_of(self.activation)(self.memory_norm(gate))
        return self.attention_norm(y) * gate, HybridState([window, memory])

    def state_bytes(self, n: int) -> int:
        return self.attention.state_bytes(n) + self.memory.state_bytes(n)
