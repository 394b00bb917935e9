"""Small decoders of the layouts that are known, with weights large enough that every part matters."""

import torch

from windeye.data.tasks import ContrastBatch
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM

VOCAB, LAYERS, HEADS = 31, 3, 4
LAYOUTS = ("windeye", "windeye, grouped", "windeye, attention only", "gpt2", "llama, grouped")


def tolerance(layout):
    """Llama's norms compute in single precision, whatever their input."""
    return 1e-5 if layout.startswith("llama") else 1e-10


def decoder(layout, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    model = (_transformers if layout.startswith(("gpt2", "llama")) else _ours)(layout)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=1.0 if "emb" in name or "wte" in name else weight.shape[-1] ** -0.5)
        else:
            torch.nn.init.normal_(weight, 0.0 if "bias" in name else 1.0, 0.3)
    return model.to(dtype).eval()


def _ours(layout):
    specs = (AttentionSpec(HEADS, kv_heads=2 if "grouped" in layout else None, bias="only" in layout),) * LAYERS
    norm = "layer" if "only" in layout else "rms"
    glu = None if "only" in layout else 48
    return DecoderLM(DecoderConfig(VOCAB, 32, specs, glu_dim=glu, norm=norm, tied_head="grouped" in layout))


def _transformers(layout):
    import transformers

    if layout == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB, n_positions=16, n_embd=32, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def logits_of(model, ids):
    """Logits as the model itself gives them."""
    with torch.no_grad():
        out = model(ids)
    return getattr(out, "logits", out)


def prompts(batch=3, n=7, seed=1, changed=3):
    """Clean and corrupted tokens that differ from ``changed`` on, but for the last one, with ends of their own."""
    generator = torch.Generator().manual_seed(seed)
    clean, corrupt = torch.randint(VOCAB, (2, batch, n), generator=generator)
    corrupt[:, :changed] = clean[:, :changed]
    end = torch.tensor([n - 1 - i % 2 for i in range(batch)])
    rows = torch.arange(batch)
    corrupt[rows, end] = clean[rows, end]
    answers = torch.stack([torch.randperm(VOCAB, generator=generator)[:2] for _ in range(batch)])
    return ContrastBatch(clean, corrupt, answers, end, {"s2": torch.full((batch,), changed + 1)})
