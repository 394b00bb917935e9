"""One tiny language model, trained with the blocks of the kernel and with the matrix of all pairs."""

from __future__ import annotations

import time
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import windeye
from windeye.data.sequences import Fresh
from windeye.data.text import Text, corpus
from windeye.nn import GatedLinearUnit
from windeye.nn.norms import SimpleRMSNorm
from windeye.papers.lightning_attention_2.plan import Plan
from windeye.report import Tell
from windeye.train import AdamW, Cosine, fit

LAYERS, DIM, HEADS, GLU = 2, 64, 4, 128
RATE, WARM_UP = 3e-3, 0.1

BLOCKS, PAIRS, OTHER = "blocks, C++", "parallel form", "parallel form, rates 5% faster"
FORMS = {BLOCKS: ("chunk", "auto", 1.0), PAIRS: ("parallel", "torch", 1.0), OTHER: ("parallel", "torch", 1.05)}
"""Form, backend, and a factor on the decay rates: the last arm shows what another function would look like."""


class Mixer(nn.Module):
    """Gated lightning attention as in TransNormerLLM, in a form of one's choice."""

    def __init__(self, arm: str, layer: int) -> None:
        super().__init__()
        self.form, self.backend, factor = FORMS[arm]
        self.log_decay = -factor * windeye.decay.tnl_rates(HEADS, layer, LAYERS).float()
        self.qkvu, self.out, self.norm = nn.Linear(DIM, 4 * DIM, False), nn.Linear(DIM, DIM, False), SimpleRMSNorm(DIM)

    def forward(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n dim"]:
        q, k, v, u = self.qkvu(x).unflatten(-1, (4, DIM)).unbind(-2)
        q, k, v = (t.unflatten(-1, (HEADS, -1)) for t in (nn.functional.silu(q), nn.functional.silu(k), v))
        mixed = windeye.linear_attention(q, k, v, log_decay=self.log_decay, form=self.form, backend=self.backend)
        return self.out(self.norm(mixed.flatten(-2)) * u)


class LanguageModel(nn.Module):
    """Bytes in, logits of the next byte out; decay is its only sense of order."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(256, DIM), nn.Linear(DIM, 256, False)
        self.mixers = nn.ModuleList(Mixer(arm, layer) for layer in range(LAYERS))
        self.glus = nn.ModuleList(GatedLinearUnit(DIM, GLU, "none") for _ in range(LAYERS))
        self.norm = SimpleRMSNorm(DIM)

    def forward(self, ids: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n 256"]:
        x = self.embed(ids)
        for mixer, glu in zip(self.mixers, self.glus, strict=True):
            x = x + mixer(self.norm(x))
            x = x + glu(self.norm(x))
        return self.head(self.norm(x))


class Curve(TypedDict):
    """The loss of every step, nats per byte."""

    losses: list[float]
    seconds: float


def train(arm: str, plan: Plan, seed: int, tell: Tell) -> Curve:
    """Train on the help topics of Python; the seed sets weights and windows, the arm nothing but the form."""
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(arm)
    windows = Text.split(corpus("pydoc")).windows(plan.window)
    rows = fit(
        model, Fresh(windows.sample, plan.batch, seed=seed), steps=plan.steps, optimiser=AdamW(rate=RATE),
        schedule=Cosine(warm_up=round(WARM_UP * plan.steps)), progress=tell,
    )  # fmt: skip
    return Curve(losses=[row["loss"] for row in rows], seconds=time.perf_counter() - began)
