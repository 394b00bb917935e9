"""The softmax decoder that linear ones are compared with."""

from __future__ import annotations

from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.mixers import AttentionSpec


def transformer(
    layers: int,
    dim: int,
    heads: int,
    *,
    vocab_size: int,
    window: int | None = None,
    kv_heads: int | None = None,
    glu_dim: int | None = None,
) -> DecoderLM:
    """A decoder of rotary softmax attention, RMS norms and SwiGLU with a tied head.

    Args:
        layers, dim, heads, vocab_size: of the decoder.
        window: keys that a query sees; None sees all of the past.
        kv_heads: heads of keys and values; default ``heads``.
        glu_dim: inner width of SwiGLU; default ``2 dim`` rounded up to a multiple of 256, as `based` has it.

    Example:
        >>> transformer(2, 32, 4, vocab_size=100).state_bytes(1000)
        512000
    """
    inner = -(-2 * dim // 256) * 256 if glu_dim is None else glu_dim
    mixers = (AttentionSpec(heads, window, kv_heads),) * layers
    return DecoderLM(DecoderConfig(vocab_size, dim, mixers, glu_dim=inner, scaled_init=True))
