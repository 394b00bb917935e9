"""The decoder that every mechanism is put into: equal but for the blocks that are compared."""

from __future__ import annotations

from dataclasses import replace

import torch

from windeye.data.sequences import derived_seed
from windeye.models import DecoderConfig, DecoderLM, MixerSpec, ProductConvolutionSpec
from windeye.nn.norms import Norm


def decoder(
    mixers: tuple[MixerSpec, ...],
    seed: int,
    *,
    vocab_size: int,
    dim: int,
    glu_dim: int | None = None,
    norm: Norm = "layer",
    init_std: float = 0.02,
) -> DecoderLM:
    """Block 0 a short convolution, then one block per mixer, and a head that is the embedding.

    The convolution puts a token and the one before it into one vector; with it a single layer of attention can recall.
    It is part of every arm, so that arms differ in what they remember and not in whether they see neighbours.

    Args:
        mixers: what is compared; an arm may have several blocks.
        seed: of the initial weights. Embedding and convolution start alike in every arm; torch's own generator is left
            as it was.
        vocab_size, dim, glu_dim, norm, init_std: of the decoder.

    Raises:
        ValueError: there is no mixer.

    Source: the MQAR benchmark's set-up for Based (based spec).

    Example:
        >>> from windeye.models import AttentionSpec
        >>> model = decoder((AttentionSpec(heads=1),), 0, vocab_size=50, dim=16)
        >>> [block.mixer.__class__.__name__ for block in model.blocks]
        ['ProductConvolution', 'CausalAttention']
    """
    if not mixers:
        raise ValueError("mixers must name at least one block")
    convolution = DecoderConfig(
        vocab_size, dim, (ProductConvolutionSpec(),), glu_dim=glu_dim, norm=norm, init_std=init_std
    )
    shared, model = _drawn(convolution, seed), _drawn(replace(convolution, mixers=convolution.mixers + mixers), seed)
    # What a mixer draws moves everything that is drawn after it.
    model.embedding.load_state_dict(shared.embedding.state_dict())
    model.blocks[0].load_state_dict(shared.blocks[0].state_dict())
    return model


def _drawn(config: DecoderConfig, seed: int) -> DecoderLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        return DecoderLM(config)
