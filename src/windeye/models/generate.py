"""Generation: one pass over the prompt, then a step per token, whatever the model keeps of its past."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from windeye.memory import State
from windeye.models.decoder import DecoderLM
from windeye.models.sampling import Sampling
from windeye.nn.padding import layout_of
from windeye.sites.hooks import evaluating


@torch.no_grad()
def generate(
    model: DecoderLM,
    ids: Int[Tensor, "batch n"],
    max_new_tokens: int,
    *,
    padding: Bool[Tensor, "batch n"] | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    end: int | None = None,
    state: State | None = None,
) -> Int[Tensor, "batch new"]:
    """Continue each prompt; the new tokens only.

    Args:
        model: is put into evaluation mode for the time being.
        ids: prompts, at least one token each.
        max_new_tokens: stop after so many; earlier, if every sequence has come to its ``end``.
        padding: True where there is no token: prompts of different lengths, padded on any side.
        temperature: 0 takes the likeliest token; else logits are divided by it and a token is drawn.
        top_k, top_p: draw only from the likeliest ``top_k`` tokens, or from those that reach the mass ``top_p``.
        seed: of the draws; None follows ``torch.manual_seed``.
        end: token after which a sequence is filled up with this token.
        state: the past that the prompts continue.

    Raises:
        ValueError, TypeError: options or shapes do not fit, or a prompt is empty.

    Example:
        >>> from windeye.models import DecoderConfig, LightningSpec
        >>> model = DecoderLM(DecoderConfig(vocab_size=50, dim=32, mixers=(LightningSpec(),) * 2, glu_dim=64))
        >>> prompts = torch.tensor([[0, 0, 7], [5, 8, 7]])
        >>> new = generate(model, prompts, 5, padding=torch.tensor([[True, True, False], [False] * 3]))
        >>> torch.equal(new[:1], generate(model, prompts[:1, 2:], 5))
        True
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, got {max_new_tokens}")
    sampling = Sampling(temperature, top_k, top_p)
    generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
    layout = layout_of(ids, padding)
    ids = layout.to_front(ids)
    lengths = torch.full(ids.shape[:1], ids.shape[1], device=ids.device) if layout.lengths is None else layout.lengths
    if not bool((lengths > 0).all()):
        raise ValueError(f"every prompt needs a token, got lengths {lengths.tolist()}")

    new: list[Tensor] = []
    done = torch.zeros_like(lengths, dtype=torch.bool)
    with evaluating(model):
        hidden, state = model.hidden(ids, lengths=layout.lengths, state=state)
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        while len(new) < max_new_tokens:
            token = sampling.choose(model.logits(last), generator)
            if end is not None:
                token = token.masked_fill(done, end)
                done = done | (token == end)
            new.append(token)
            if len(new) == max_new_tokens or (end is not None and bool(done.all())):
                break
            hidden, state = model.hidden(token[:, None], state=state)
            last = hidden[:, 0]
    return torch.stack(new, dim=1) if new else ids[:, :0]
