"""Doge: a decoder of dynamic mask attention whose residual stream has learned scales."""

from __future__ import annotations

from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.mixers import DynamicMaskSpec
from windeye.models.registry import register
from windeye.models.weights import WeightMap
from windeye.nn.dynamic_mask import Score, ScoreHeads

LAYER = "model.layers.{layer}"
WEIGHTS = WeightMap(
    "Doge",
    {
        "embedding.weight": "model.embed_tokens.weight",
        "blocks.{layer}.mixer_norm.weight": f"{LAYER}.input_layernorm.weight",
        "blocks.{layer}.mixer_residual": f"{LAYER}.input_residual",
        "blocks.{layer}.mixer.A": f"{LAYER}.self_attn.A",
        "blocks.{layer}.mixer.dt_proj.weight": f"{LAYER}.self_attn.dt_proj.weight",
        "blocks.{layer}.mixer.q_proj.weight": f"{LAYER}.self_attn.q_proj.weight",
        "blocks.{layer}.mixer.k_proj.weight": f"{LAYER}.self_attn.k_proj.weight",
        "blocks.{layer}.mixer.v_proj.weight": f"{LAYER}.self_attn.v_proj.weight",
        "blocks.{layer}.mixer.q_norm.weight": f"{LAYER}.self_attn.q_norm.weight",
        "blocks.{layer}.mixer.k_norm.weight": f"{LAYER}.self_attn.k_norm.weight",
        "blocks.{layer}.mixer.out_proj.weight": f"{LAYER}.self_attn.o_proj.weight",
        "blocks.{layer}.channel_norm.weight": f"{LAYER}.post_attention_layernorm.weight",
        "blocks.{layer}.channel_residual": f"{LAYER}.post_attention_residual",
        "blocks.{layer}.channel_mixer.in_proj.weight": (
            f"{LAYER}.mlp.up_proj.weight",
            f"{LAYER}.mlp.gate_proj.weight",
        ),
        "blocks.{layer}.channel_mixer.out_proj.weight": f"{LAYER}.mlp.down_proj.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    },
    tied={"lm_head.weight": "embedding.weight"},
    earlier={
        ".word_embed.": ".embed_tokens.",
        ".final_layernorm.": ".norm.",
        ".pre_layernorm.": ".input_layernorm.",
        ".pre_residual.weight": ".input_residual",
        ".post_layernorm.": ".post_attention_layernorm.",
        ".post_residual.weight": ".post_attention_residual",
        ".feed_forward.": ".mlp.",
    },
    foreign={
        r"\.(router_gate|down_embed|up_embed)\.": (
            "it is a mixture of experts (CDMoE), whose channel mixers are not built here"
        )
    },
)
"""Names of the released weights, and of their first releases."""


def doge(
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    glu_dim: int,
    *,
    keep: int = 2048,
    vocab_size: int = 32768,
    score_heads: ScoreHeads = "query",
    score: Score = "exp",
    qk_norm: bool = False,
    rotary_base: float = 10000.0,
    tied_head: bool = True,
) -> DecoderLM:
    """Doge of any size: ``x <- r1 x + attention(norm(x))``, ``x <- r2 x + glu(norm(x))`` with learned ``r1, r2``.

    The second Doge has ``score_heads="kv"`` and ``qk_norm=True``. Whether a checkpoint's scores are exponentials cannot
    be seen from its tensors. Mixtures of experts (the MoE models, all of the second Doge's) are not built here.

    Args:
        layers, dim, heads, kv_heads: of the decoder.
        glu_dim: inner width of SwiGLU.
        keep: keys that each query keeps. Released models were trained on texts of at most so many tokens, so that
            only longer ones are thinned out.
        vocab_size: of the embedding.
        score_heads, score, qk_norm, rotary_base: see `windeye.nn.DynamicMaskAttention`. The largest released model
            stretches its rotary positions beyond 2,048 tokens, which is not done here.
        tied_head: whether the head is the embedding.

    Source: dma spec. Inner widths of the first four sizes are inferred from their published numbers of parameters.

    Example:
        >>> model = doge(2, 32, 4, 2, 64, keep=16, vocab_size=100)
        >>> model.state_bytes(16) == model.state_bytes(10**6)
        True
    """
    mixer = DynamicMaskSpec(
        heads, keep, kv_heads, score_heads=score_heads, score=score, rotary_base=rotary_base, qk_norm=qk_norm
    )
    return DecoderLM(
        DecoderConfig(
            vocab_size, dim, (mixer,) * layers, glu_dim=glu_dim, norm_eps=1e-6, tied_head=tied_head, residual_scale=True
        )
    )


register("doge_20m", doge, WEIGHTS, layers=8, dim=256, heads=2, kv_heads=1, glu_dim=512)
register("doge_60m", doge, WEIGHTS, layers=16, dim=512, heads=4, kv_heads=2, glu_dim=1024)
register("doge_160m", doge, WEIGHTS, layers=24, dim=768, heads=6, kv_heads=3, glu_dim=1536)
register("doge_320m", doge, WEIGHTS, layers=32, dim=1024, heads=8, kv_heads=4, glu_dim=2048)
# Of the newer recipes, with another tokenizer.
NEWER = {"vocab_size": 128256}
register("doge_40m", doge, WEIGHTS, layers=8, dim=256, heads=2, kv_heads=1, glu_dim=1024, keep=4096, **NEWER)
register("doge_100m", doge, WEIGHTS, layers=16, dim=512, heads=4, kv_heads=2, glu_dim=1536, **NEWER)
register("doge_260m", doge, WEIGHTS, layers=24, dim=768, heads=6, kv_heads=3, glu_dim=2304, **NEWER)
