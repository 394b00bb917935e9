"""Based: Taylor linear attention and small windows among gated short convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.mixers import AttentionSpec, ConvolutionSpec, MixerSpec, TaylorSpec
from windeye.models.registry import register
from windeye.models.weights import WeightMap

LAYER = "transformer.layers.{layer}"
WEIGHTS = WeightMap(
    "Based",
    {
        "embedding.weight": "transformer.embeddings.word_embeddings.weight",
        "blocks.{layer}.mixer_norm.weight": f"{LAYER}.norm1.weight",
        "blocks.{layer}.mixer.q_proj.weight": f"{LAYER}.mixer.proj_q.weight",
        "blocks.{layer}.mixer.k_proj.weight": f"{LAYER}.mixer.proj_k.weight",
        "blocks.{layer}.mixer.v_proj.weight": f"{LAYER}.mixer.proj_v.weight",
        "blocks.{layer}.mixer.qkv_proj.weight": f"{LAYER}.mixer.Wqkv.weight",
        "blocks.{layer}.mixer.in_proj.weight": f"{LAYER}.mixer.in_proj.weight",
        "blocks.{layer}.mixer.in_proj.bias": f"{LAYER}.mixer.in_proj.bias",
        "blocks.{layer}.mixer.conv.weight": f"{LAYER}.mixer.conv.conv.weight",
        "blocks.{layer}.mixer.conv.bias": f"{LAYER}.mixer.conv.conv.bias",
        "blocks.{layer}.mixer.out_proj.weight": f"{LAYER}.mixer.out_proj.weight",
        "blocks.{layer}.mixer.out_proj.bias": f"{LAYER}.mixer.out_proj.bias",
        "blocks.{layer}.channel_norm.weight": f"{LAYER}.norm2.weight",
        "blocks.{layer}.channel_mixer.in_proj.weight": f"{LAYER}.mlp.fc1.weight",
        "blocks.{layer}.channel_mixer.out_proj.weight": f"{LAYER}.mlp.fc2.weight",
        "norm.weight": "transformer.ln_f.weight",
    },
    tied={"lm_head.weight": "embedding.weight"},
    prefix="model.",
    dropped=r".*metric.*",
)
"""Names of the released weights."""


def based(
    layers: int,
    dim: int,
    heads: int,
    taylor_layers: Sequence[int],
    window_layers: Sequence[int],
    *,
    feature_dim: int = 16,
    window: int = 129,
    vocab_size: int = 50264,
    glu_dim: int | None = None,
    conv_bias: bool = False,
) -> DecoderLM:
    """Based of any size: layers that are in neither list are gated short convolutions over 3 tokens.

    Args:
        layers, dim, heads: of the decoder.
        taylor_layers, window_layers: numbers of the layers, from 0, with Taylor attention and with windows.
        feature_dim: width of queries and keys of Taylor attention.
        window: keys that a window shows, the query's own counted. The released configuration says 256, which the
            official code halves: 128 before the query and itself.
        vocab_size: GPT-2's 50,257 filled up to a multiple of 8.
        glu_dim: inner width of SwiGLU; default ``2 dim`` rounded up to a multiple of 256.
        conv_bias: released weights come with and without.

    Raises:
        ValueError: the lists overlap or name a layer that there is not.

    Source: based spec.

    Example:
        >>> model = based(4, 32, 4, taylor_layers=(1,), window_layers=(2,), window=16, vocab_size=100)
        >>> [block.mixer.__class__.__name__ for block in model.blocks]
        ['GatedShortConvolution', 'TaylorLinearAttention', 'CausalAttention', 'GatedShortConvolution']
    """
    for name, chosen in (("taylor_layers", taylor_layers), ("window_layers", window_layers)):
        outside = [layer for layer in chosen if not 0 <= layer < layers]
        if outside:
            raise ValueError(f"{name} must be in [0, {layers}), got {outside[0]}")
    both = sorted(set(taylor_layers) & set(window_layers))
    if both:
        raise ValueError(f"layers {both} are in taylor_layers and in window_layers")

    def spec(layer: int) -> MixerSpec:
        if layer in taylor_layers:
            return TaylorSpec(heads, feature_dim)
        if layer in window_layers:
            return AttentionSpec(heads, window)
        return ConvolutionSpec(conv_bias=conv_bias)

    return DecoderLM(
        DecoderConfig(
            vocab_size, dim, tuple(spec(layer) for layer in range(layers)),
            glu_dim=-(-2 * dim // 256) * 256 if glu_dim is None else glu_dim, scaled_init=True,
        )
    )  # fmt: skip


register(
    "based_360m", based, WEIGHTS, layers=27, dim=1024, heads=16,
    taylor_layers=(1, 6, 11, 16, 21), window_layers=(2, 7, 12, 17, 22),
)  # fmt: skip
register(
    "based_1b", based, WEIGHTS, layers=36, dim=1792, heads=16,
    taylor_layers=(1, 6, 11, 16, 21, 27, 33), window_layers=(2, 7, 12, 17, 22, 28, 34),
)  # fmt: skip
