"""The models that are compared: TransNormerLLM, softmax attention, and TransNormerLLM without one of its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from windeye.models import AttentionSpec, DecoderConfig, DecoderLM, tnl, transformer

LAYERS, DIM, HEADS, GLU = 4, 96, 4, 192
WIDER = GLU + DIM // 3
"""Inner width of the gated linear unit where the mixer has one ``DIM x DIM`` map less: the parameters stay equal."""
INIT = 0.02 * (1024 / DIM) ** 0.5
"""Spread of fresh weights in every arm: the gain of a linear map is then that of the published 0.02 at width 1024."""

TNL, TRANSFORMER, SOFTMAX_BODY = "TNL", "transformer", "softmax in TNL's body"
NO_DECAY, NO_LRPE, NO_POSITIONS = "no decay", "no LRPE", "no decay, no LRPE"
NO_FACTOR, NO_GATE, NO_NORM, PAPER_RATES = "no layer factor", "no gate", "no norm", "rates of the paper's text"
ARMS = (
    TNL, TRANSFORMER, SOFTMAX_BODY, NO_POSITIONS, NO_DECAY, NO_LRPE, NO_FACTOR, NO_GATE, NO_NORM, PAPER_RATES,
)  # fmt: skip


def config(arm: str) -> DecoderConfig:
    """The model of an arm.

    Two softmax arms: a transformer of the usual kind (RMS norms, SwiGLU), and one in which only TNL's mixers are
    replaced by rotary attention, so that body and mixer can be told apart. "No layer factor" gives every layer the
    rates of the first, about; the rates of the paper's text are faster than those of its code.

    Raises:
        KeyError: an unknown arm.
    """
    with torch.device("meta"):
        linear = replace(tnl(LAYERS, DIM, HEADS, GLU, vocab_size=256).config, init_std=INIT)
        usual = transformer(LAYERS, DIM, HEADS, vocab_size=256, glu_dim=WIDER).config
    changes: dict[str, dict[str, Any]] = {
        TNL: {},
        NO_POSITIONS: {"rates": "none", "lrpe": False},
        NO_DECAY: {"rates": "none"},
        NO_LRPE: {"lrpe": False},
        NO_FACTOR: {"rates": "alibi"},
        NO_GATE: {"gate": "none"},
        NO_NORM: {"norm": "none"},
        PAPER_RATES: {"rates": "paper"},
    }
    if arm == TRANSFORMER:
        return replace(usual, tied_head=False, init_std=INIT)
    if arm == SOFTMAX_BODY:
        return replace(linear, mixers=(AttentionSpec(HEADS),) * LAYERS, glu_dim=WIDER)
    mixers = tuple(replace(spec, **changes[arm]) for spec in linear.mixers)
    return replace(linear, mixers=mixers, glu_dim=WIDER if arm == NO_GATE else GLU)


def build(arm: str, seed: int) -> DecoderLM:
    """Fresh weights of a seed; the seeds of torch's own generator are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderLM(config(arm))


def parameters(arm: str) -> int:
    """How many numbers an arm learns.

    Example:
        >>> counts = [parameters(arm) for arm in ARMS]
        >>> max(counts) / min(counts) < 1.002
        True
    """
    with torch.device("meta"):
        return sum(p.numel() for p in DecoderLM(config(arm)).parameters())
