"""Tiny random models of several families, with maps that are far from even."""

import pytest
import torch
import transformers
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 40
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW = {"sliding_window": 5}

DECODERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, **WINDOW)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, head_dim=8, **WINDOW, attn_logit_softcapping=3.0, query_pre_attn_scalar=8)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SIZES, head_dim=8, **WINDOW, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
        )
    ),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(
            **SIZES,
            head_dim=8,
            **WINDOW,
            num_local_experts=2,
            num_experts_per_tok=1,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "llava": lambda: LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(**SIZES).to_dict(),
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
                "projection_dim": 16,
            },
            image_token_id=5,
        )
    ),
}
ENCODERS = {
    "bert": lambda: BertModel(
        BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    ),
    "albert": lambda: AlbertModel(
        AlbertConfig(
            vocab_size=VOCAB,
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
        )
    ),
}


NEWER = transformers.__version__.startswith("4.") and "encoders look their attention up since transformers 5"


def build(family, attention="sdpa"):
    if family in ENCODERS and NEWER:
        pytest.skip(NEWER)
    torch.manual_seed(0)
    model = (DECODERS | ENCODERS)[family]()
    for name, parameter in model.named_parameters():
        if "proj" in name or "attn" in name or "query" in name or "key" in name:
            parameter.data *= 8
    # In float32: with float64 the eager attention of transformers overflows where padding sees nothing.
    model = model.eval()
    model.set_attn_implementation(attention)
    return model


def prompts(*lengths, seed=0, vocab=VOCAB, left=True):
    """Random prompts with padding, and their attention mask."""
    n = max(lengths)
    places, given = torch.arange(n), torch.tensor(lengths)[:, None]
    mask = places >= n - given if left else places < given
    ids = torch.randint(6, vocab, (len(lengths), n), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids * mask, "attention_mask": mask.long()}
