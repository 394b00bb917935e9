"""Titans MAC: memory as context."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.kernels.associative.pieces import Pieces
from windeye.memory import AssociativeState, HybridState, SegmentState, State
from windeye.memory.tensors import latest
from windeye.nn.activations import Activation, activation_of
from windeye.nn.attention import CausalAttention
from windeye.nn.mixer import SequenceMixer, check_count, expect, seen_after
from windeye.nn.norms import norm_of
from windeye.nn.titans.layer import persistent_tokens
from windeye.nn.titans.memory import NeuralMemory
from windeye.ops import attend, merge
from windeye.patterns import Causal, Full


class MemoryAsContext(SequenceMixer):
    """Attention within segments that begin with what the memory recalls of earlier ones.

    Of each segment ``s`` of ``segment`` tokens, with the memory as the segments before left it::

        h = memory recalled for each token of s             nothing is written
        y = attention over [p; h; s], rows of s             p are learned tokens
        m = memory, written with norm(s + y) and read after each token
        out = norm(y) activation(norm(m))

    Token ``i`` of a segment sees all of ``p``, and ``h`` and ``s`` up to its own place. The published figure shows all
    of ``h`` to every token of the segment: but ``h_j`` is made of token ``j``, so that tokens see later ones of their
    segment. ``whole_recall=True`` does that, for encoders; such a layer is not causal and cannot go on within a
    segment.

    Args:
        attention: over everything, its channels are those of the memory; it is used within segments.
        memory: without persistent tokens of its own.
        segment: tokens of a segment.
        persistent: how many learned tokens ``p`` there are.
        activation: of the gate that the memory is.
        residual: whether ``s`` is part of what is written; the published formula writes ``y``.
        whole_recall: see above.

    Raises:
        ValueError: widths differ, attention has a window, the memory has persistent tokens of its own, or a layer with
            ``whole_recall`` is to go on within a segment.

    Source: titans spec, section 5; positions are those of the sequence [p; h; s]. ``h`` is looked up without the
    memory's convolution. Without the residual and the norm before the memory training diverged, in a budget in which
    the memory alone learned to recall.

    Example:
        >>> layer = MemoryAsContext(CausalAttention(32, 4), NeuralMemory(32, 2), segment=8, persistent=4)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(
        self,
        attention: CausalAttention,
        memory: NeuralMemory,
        segment: int,
        persistent: int = 0,
        activation: Activation = "silu",
        *,
        residual: bool = True,
        whole_recall: bool = False,
    ) -> None:
        super().__init__(attention.dim)
        if attention.window is not None:
            raise ValueError(f"attention within segments needs no window, got window {attention.window}")
        self.attention, self.memory, self.whole_recall = attention, memory, whole_recall
        self.activation, self.residual = activation, residual
        self.segment = check_count("segment", segment)
        self.persistent = persistent_tokens(persistent, attention, memory)
        self.attention_norm, self.written_norm, self.memory_norm = (
            norm_of("rms", attention.dim, 1e-6) for _ in range(3)
        )

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        past = expect(state, HybridState)
        segment, memory = (self._begin(x) if past is None else past).layers
        assert isinstance(segment, SegmentState)
        assert isinstance(memory, HybridState)
        seen = seen_after(x, lengths, segment)
        if x.numel() == 0:
            return x, HybridState([segment, memory])
        place = segment.seen % self.segment
        if self.whole_recall and bool(place.any()):
            raise ValueError(
                f"a layer with whole_recall shows a segment of {self.segment} tokens to itself as a whole; it cannot "
                f"go on after {segment.seen.tolist()} tokens"
            )
        pieces = Pieces.of(place, lengths, n=x.shape[1], period=self.segment)
        outs = []
        for tokens, length in zip(pieces.split(x).unbind(1), pieces.lengths.unbind(1), strict=True):
            out, segment, memory = self._piece(tokens, length, place, segment, memory)
            place = (place + length) % self.segment
            outs.append(out)
        return pieces.join(torch.stack(outs, dim=1)), HybridState([replace(segment, seen=seen), memory])

    def _piece(
        self,
        x: Float[Tensor, "batch width dim"],
        lengths: Int[Tensor, " batch"],
        place: Int[Tensor, " batch"],
        segment: SegmentState,
        memory: HybridState,
    ) -> tuple[Float[Tensor, "batch width dim"], SegmentState, HybridState]:
        """Tokens of one segment per row, of which each row has been through ``place``."""
        weights = memory.layers[1]
        assert isinstance(weights, AssociativeState)
        begins = ((place == 0) & (lengths > 0))[:, None, None]
        at_begin = torch.where(begins, weights.weights, segment.weights)
        recalled = self.memory.retrieve(x, replace(weights, weights=at_begin))
        y, key, value = self._attended(x, recalled, lengths, place, segment)
        written = self.written_norm(x + y if self.residual else y)
        said, memory = self.memory.mix(written, lengths, memory)
        out = self.attention_norm(y) * activation_of(self.activation)(self.memory_norm(said))
        after = (place + lengths) % self.segment
        held = int(after.max()) if after.numel() else 0
        empty = torch.arange(held, device=x.device) < held - after[:, None]
        key, value = (
            latest(t, held, x.shape[1] - lengths).masked_fill(empty[..., None, None], 0) for t in (key, value)
        )
        return out, SegmentState(segment.seen, key, value, at_begin), memory

    def _attended(
        self,
        x: Float[Tensor, "batch width dim"],
        recalled: Float[Tensor, "batch width dim"],
        lengths: Int[Tensor, " batch"],
        place: Int[Tensor, " batch"],
        segment: SegmentState,
    ) -> tuple[Float[Tensor, "batch width dim"], Tensor, Tensor]:
        """Attention of tokens over persistent, recalled and own ones; also all keys and values of the segment."""
        attention, batch = self.attention, x.shape[0]
        first = 0 if self.persistent is None else self.persistent.shape[0]
        where = first + place[:, None] + torch.arange(x.shape[1], device=x.device)
        query, *own = attention.project(x, where + self.segment)
        _, *memories = attention.project(recalled, where)
        extra = None
        if self.persistent is not None:
            _, *learned = attention.project(self.persistent[None], torch.arange(first, device=x.device)[None])
            extra = (learned[0].expand(batch, -1, -1, -1), learned[1].expand(batch, -1, -1, -1))
        # Recalled and own tokens side by side, as heads.
        key, value = (
            torch.cat((held.to(o.dtype), torch.cat((m, o), dim=-2)), dim=1)
            for held, m, o in zip((segment.key, segment.value), memories, own, strict=True)
        )
        hidden = self._hidden(segment.key.shape[1], place)
        shown = torch.zeros(batch, x.shape[1], dtype=torch.bool, device=x.device)
        padded = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        recalled_hidden = torch.cat((hidden, padded if self.whole_recall else shown), dim=1)
        hidden = torch.cat((hidden, shown), dim=1)
        (key_h, key_s), (value_h, value_s) = key.chunk(2, dim=-2), value.chunk(2, dim=-2)
        out, _ = merge(
            attend(query, key_s, value_s, Causal(), key_padding=hidden, extra_kv=extra, return_lse=True),
            attend(
                query, key_h, value_h, Full() if self.whole_recall else Causal(), key_padding=recalled_hidden,
                return_lse=True,
            ),
        )  # fmt: skip
        return attention.out_proj(out.flatten(-2)), key, value

    def _hidden(self, places: int, place: Int[Tensor, " batch"]) -> Bool[Tensor, "batch places"]:
        """Places in front of those that a row holds."""
        return torch.arange(places, device=place.device) < places - place[:, None]

    def _begin(self, x: Float[Tensor, "batch n dim"]) -> HybridState:
        _, memory = self.memory.begin(None, x.shape[0])
        weights = memory.layers[1]
        assert isinstance(weights, AssociativeState)
        nothing = x.new_zeros(x.shape[0], 0, 2 * self.attention.kv_heads, self.attention.head_dim)
        return HybridState([SegmentState(memory.seen, nothing, nothing, weights.weights), memory])

    def state_bytes(self, n: int) -> int:
        """Keys and values of the running segment, twice, and four times the weights of the memory."""
        held = 4 * (n % self.segment) * self.attention.kv_heads * self.attention.head_dim
        numbers = sum(weight.numel() for weight in self.memory.weights)
        return held * self.itemsize + numbers * max(4, self.itemsize) + self.memory.state_bytes(n)
