"""Titans: decoders with a memory that learns at test time in some of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.mixers import AttentionSpec, MixerSpec, TitansSpec, TitansVariant
from windeye.models.registry import register


def titans(
    variant: TitansVariant,
    layers: int,
    dim: int,
    heads: int,
    *,
    memory_layers: Sequence[int] | None = None,
    window: int = 32,
    glu_dim: int | None = None,
    vocab_size: int = 256,
    **memory: Any,
) -> DecoderLM:
    """Titans of any size: layers with memory, and between them attention in a window.

    Args:
        variant: "mac", "mag", "mal", or "lmm" for the memory alone.
        layers, dim, heads: of the decoder.
        memory_layers: numbers of the layers with memory, from 0; default all.
        window: of attention, and of the segments of "mac".
        glu_dim: inner width of SwiGLU; default ``8 / 3 dim`` rounded up to a multiple of 64.
        vocab_size: bytes.
        memory: further settings of `windeye.models.TitansSpec`.

    Raises:
        ValueError: the list names a layer that there is not.
        TypeError: a setting that the mixer does not have.

    Source: titans spec. Depths, widths, windows and chunks of the paper's models are not published, and no weights are:
    the sizes registered here are small ones in which re-implementations are known to train.

    Example:
        >>> import torch
        >>> model = titans("mac", layers=2, dim=32, heads=2, memory_layers=[1], window=8, chunk_size=4)
        >>> model(torch.randint(256, (1, 20))).shape
        torch.Size([1, 20, 256])
    """
    wanted = set(range(layers) if memory_layers is None else memory_layers)
    if outside := sorted(wanted - set(range(layers))):
        raise ValueError(f"memory_layers name layer {outside[0]} but there are {layers}, from 0")
    with_memory = TitansSpec(variant, heads, window, **memory)
    mixers: tuple[MixerSpec, ...] = tuple(
        with_memory if layer in wanted else AttentionSpec(heads, window=window) for layer in range(layers)
    )
    inner = -(-8 * dim // 3 // 64) * 64 if glu_dim is None else glu_dim
    return DecoderLM(DecoderConfig(vocab_size, dim, mixers, glu_dim=inner, scaled_init=True))


SMALL: dict[str, Any] = {"layers": 8, "dim": 384, "heads": 6, "memory_layers": (1, 3, 5), "chunk_size": 4}
for _variant in ("lmm", "mac", "mag", "mal"):
    register(f"titans_{_variant}_small", titans, variant=_variant, **SMALL)
