"""Models that are small, and sharp enough that every layer decides which token comes next."""

import torch

from models.test_decoder import wide
from windeye.hf import WindeyeForCausalLM
from windeye.models import MIXERS, DecoderConfig, DecoderLM

VOCAB = 23
PAD = 0


def model_of(*specs, **settings):
    decoder = wide(lambda: DecoderLM(DecoderConfig(VOCAB, 16, specs, glu_dim=16, **settings)))
    return WindeyeForCausalLM.from_decoder(decoder.eval(), pad_token_id=PAD)


def of_kind(kind):
    return model_of(MIXERS[kind](), MIXERS[kind]())


def prompts(*lengths):
    """Random prompts, padded on the left, and their attention mask."""
    n = max(lengths)
    mask = torch.arange(n) >= n - torch.tensor(lengths)[:, None]
    return torch.randint(1, VOCAB, (len(lengths), n)) * mask, mask.long()
