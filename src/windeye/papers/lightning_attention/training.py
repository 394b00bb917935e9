"""One arm trained on bytes of text and scored on bytes that it has not seen; how fast it trains at each length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from windeye.bench.timing import Candidate, compare
from windeye.data import AssetUnavailable
from windeye.data.sequences import Fresh
from windeye.data.text import Text, corpus
from windeye.models import DecoderLM
from windeye.papers.lightning_attention.arms import TNL, TRANSFORMER, build
from windeye.papers.lightning_attention.plan import Plan
from windeye.report import Tell
from windeye.train import AdamW, Cosine, NonFinite, fit, score
from windeye.train.metrics import token_loss

RATE, WARM_UP = 4e-3, 0.1
STRETCHES = 10
UNIFORM = 8.0
"""Bits per byte of a model that knows nothing; what a diverged run counts as."""


class Outcome(TypedDict):
    """What one arm and seed leave behind; ``diverged`` is the step at which a loss was no number, 0 if none was."""

    bits: float
    trained: float
    diverged: int
    seconds: float


def read(data: Path | None, *, only_shipped: bool) -> tuple[str, Tensor]:
    """The name of a text and its bytes: a file, else six novels, else what comes with Python.

    Example:
        >>> name, tokens = read(None, only_shipped=True)
        >>> name, len(tokens) > 100_000
        ('pydoc', True)
    """
    if data is not None:
        return data.name, torch.frombuffer(bytearray(data.read_bytes()), dtype=torch.uint8)
    if only_shipped:
        return "pydoc", corpus("pydoc")
    try:
        return "austen", corpus("austen")
    except AssetUnavailable:
        return "pydoc and python", torch.cat((corpus("pydoc"), corpus("python")[: 1 << 22]))


def split(tokens: Tensor, plan: Plan) -> Text:
    """Held out are the tails of equal stretches: a fair sample of a text that changes on its way.

    Raises:
        ValueError: the text is shorter than four times what the plan holds out.
    """
    if len(tokens) < 4 * plan.held_out:
        raise ValueError(f"the text must have at least {4 * plan.held_out} bytes, got {len(tokens)}")
    return Text.split(tokens, held_out=plan.held_out / len(tokens), stretches=STRETCHES)


def train(arm: str, text: Text, plan: Plan, seed: int, device: str, tell: Tell) -> Outcome:
    """Train with AdamW, warm-up and cosine; the seed alone sets weights and windows, which all arms share.

    A run that diverges is an outcome: it counts as the uniform guess.
    """
    began = time.perf_counter()
    model = build(arm, seed).to(device)
    windows = text.windows(plan.window)
    losses: list[float] = []

    def finished(bits: float, diverged: int) -> Outcome:
        trained = math.fsum(losses) / len(losses) / math.log(2) if losses else UNIFORM
        return Outcome(bits=bits, trained=trained, diverged=diverged, seconds=time.perf_counter() - began)

    done = 0

    def note(share: float) -> None:
        nonlocal done
        done = round(share * plan.steps)
        tell(share)

    try:
        rows = fit(
            model, Fresh(windows.sample, plan.batch, seed=seed), steps=plan.steps,
            optimiser=AdamW(rate=RATE), schedule=Cosine(warm_up=round(WARM_UP * plan.steps)),
            progress=note,
        )  # fmt: skip
    except NonFinite:
        return finished(UNIFORM, done + 1)
    losses = [row["loss"] for row in rows[-50:]]
    return finished(math.log2(score(model, windows.cover(32))["perplexity"]), 0)


class Speeds(TypedDict):
    """One repetition: tokens per second by model and length, and that over the shortest length, round by round."""

    tokens_per_second: dict[str, dict[str, float]]
    over_shortest: dict[str, dict[str, float]]
    seconds: float


def speeds(text: Text, plan: Plan, seed: int, device: str) -> Speeds:
    """Forward and backward passes over as many bytes at every length; the lengths of a model take turns."""
    began = time.perf_counter()
    found = Speeds(tokens_per_second={}, over_shortest={}, seconds=0.0)
    lengths = {TNL: plan.lengths, TRANSFORMER: [n for n in plan.lengths if n <= plan.longest_softmax]}
    batches = {n: text.windows(n).sample(plan.tokens // n, seed=seed, split="train") for n in plan.lengths}
    for arm, own in lengths.items():
        model = build(arm, seed).to(device)
        candidates: dict[str, Candidate] = {str(n): _pass(model, *(t.to(device) for t in batches[n])) for n in own}
        timings = compare(candidates, baseline=str(min(own)), rounds=plan.rounds, most_seconds=600)
        found["tokens_per_second"][arm] = {n: plan.tokens / timing.seconds for n, timing in timings.items()}
        found["over_shortest"][arm] = {n: timing.speedup for n, timing in timings.items()}
    found["seconds"] = time.perf_counter() - began
    return found


def _pass(model: DecoderLM, tokens: Tensor, targets: Tensor) -> Callable[[], None]:
    def run() -> None:
        torch.autograd.backward(token_loss(model(tokens), targets))
        model.zero_grad(set_to_none=True)

    return run
