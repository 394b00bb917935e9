"""TransNormerLLM: a decoder of gated lightning attention, with learned rotary positions in its first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.mixers import LightningSpec, Rates
from windeye.models.registry import register
from windeye.models.weights import WeightMap

LAYER = "model.layers.{layer}"
WEIGHTS = WeightMap(
    "TransNormerLLM",
    {
        "embedding.weight": "model.embed_tokens.weight",
        "blocks.{layer}.mixer.qkvu_proj.weight": f"{LAYER}.token_mixer.qkvu_proj.weight",
        "blocks.{layer}.mixer.out_proj.weight": f"{LAYER}.token_mixer.out_proj.weight",
        "blocks.{layer}.mixer.lrpe.theta": f"{LAYER}.token_mixer.lrpe.theta",
        "blocks.{layer}.channel_mixer.in_proj.weight": (
            f"{LAYER}.channel_mixer.l1.weight",
            f"{LAYER}.channel_mixer.l2.weight",
        ),
        "blocks.{layer}.channel_mixer.out_proj.weight": f"{LAYER}.channel_mixer.l3.weight",
        "head.weight": "lm_head.weight",
    },
    tied={"lm_head.weight": "embedding.weight"},
)
"""Names of the released weights. Norms have no parameters, decays are computed."""


def tnl(
    layers: int,
    dim: int,
    heads: int,
    glu_dim: int,
    *,
    vocab_size: int = 64000,
    hidden_dim: int | None = None,
    lrpe_layers: Sequence[int] = (0,),
    rates: Rates = "code",
    tied_head: bool = False,
    scale_embedding: bool = True,
) -> DecoderLM:
    """TransNormerLLM of any size.

    Args:
        layers, dim, heads: of the decoder.
        glu_dim: inner width of the gated linear unit, which has no activation.
        vocab_size: 64,000 in the released models (pad 0, begin 1, end 2).
        hidden_dim: channels of q, k, v and the gate; default ``dim``.
        lrpe_layers: layers with learned rotary positions. The paper's "mix" is the first only; in every layer it was
            slightly better and 15 to 20 % slower.
        rates: see `windeye.models.LightningSpec`; released weights need "code".
        tied_head: whether the head is the embedding.
        scale_embedding: embeddings times ``sqrt(dim)``.

    Source: lightning-attention spec.

    Example:
        >>> model = tnl(layers=2, dim=32, heads=4, glu_dim=64, vocab_size=100)
        >>> model.state_bytes(10) == model.state_bytes(10**6) == 4 * 4 * 8 * 8 * (2 + 1)
        True
    """
    for layer in lrpe_layers:
        if not 0 <= layer < layers:
            raise ValueError(f"lrpe_layers must be in [0, {layers}), got {layer}")
    mixers = (LightningSpec(heads, rates, layer in lrpe_layers, hidden_dim) for layer in range(layers))
    return DecoderLM(
        DecoderConfig(
            vocab_size, dim, tuple(mixers), glu_dim=glu_dim, glu_activation="none", norm="simple_rms", norm_eps=1e-6,
            tied_head=tied_head, embedding_scale=math.sqrt(dim) if scale_embedding else 1.0,
        )
    )  # fmt: skip


register("tnl_385m", tnl, WEIGHTS, layers=24, dim=1024, heads=8, glu_dim=2816)
# The widths 5632 and 11008 are not published: scaled from the smallest. A checkpoint of another width is refused and
# says its own, to be given as glu_dim.
register("tnl_1b", tnl, WEIGHTS, layers=16, dim=2048, heads=16, glu_dim=5632)
register("tnl_7b", tnl, WEIGHTS, layers=30, dim=4096, heads=32, glu_dim=11008)
