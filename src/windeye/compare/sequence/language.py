"""A small language model of bytes: the same skeleton, text and budget for every mixer."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import torch
from torch import nn

from windeye.compare.sequence.skeleton import decoder
from windeye.compare.training import Point, check_seed, trained
from windeye.data.sequences import Fresh, Sequences, check_integer
from windeye.data.text import CORPORA, Text, Windows, corpus
from windeye.models import DecoderLM, MixerSpec
from windeye.report import Tell, silent
from windeye.train import score

BYTES = 256


@dataclass(frozen=True)
class LanguagePlan:
    """What every arm is trained on and for how long.

    Args:
        text: a corpus by its name; the tails of twenty stretches of it are held out.
        length: bytes of a window.
        dim, glu_dim: of the decoder, in which a gated linear unit follows every mixer.
        steps, batch_size: fresh windows in every step.
        rate: peak learning rate, one for all arms.
        held_out: windows of the held-out text that arms are scored on, the same for every arm and seed.
        every: steps between evaluations.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    text: str = "austen"
    length: int = 128
    dim: int = 96
    glu_dim: int = 192
    steps: int = 300
    batch_size: int = 16
    rate: float = 3e-3
    held_out: int = 256
    every: int = 150

    def __post_init__(self) -> None:
        for name in ("length", "dim", "glu_dim", "steps", "batch_size", "held_out", "every"):
            check_integer(name, getattr(self, name), 1)
        if self.text not in CORPORA:
            raise ValueError(f"text must be one of {', '.join(CORPORA)}, got {self.text!r}")

    @property
    def windows(self) -> Windows:
        """Windows of the text."""
        return _split(self.text).windows(self.length)

    def batches(self, seed: int) -> Fresh:
        """The training windows of a seed, the same for every arm."""
        return Fresh(self.windows.sample, self.batch_size, seed=seed)

    def held_out_windows(self) -> Sequences:
        """What arms are scored on."""
        return self.windows.sample(self.held_out, seed=0, split="test")

    def model(self, mixers: tuple[MixerSpec, ...], seed: int) -> DecoderLM:
        """The decoder of an arm before training."""
        return decoder(mixers, seed, vocab_size=BYTES, dim=self.dim, glu_dim=self.glu_dim)


class LanguageOutcome(TypedDict):
    """What one arm and seed leave behind; ``seconds`` are of the processor, which a busy machine does not stretch."""

    bits_per_byte: float
    steps: int
    diverged: bool
    state_bytes: int
    parameters: int
    seconds: float
    history: list[Point]


def train_language(
    mixers: tuple[MixerSpec, ...], plan: LanguagePlan, seed: int, device: str = "cpu", tell: Tell = silent
) -> LanguageOutcome:
    """Train one arm and score it on text that it has not seen, in bits per byte.

    Args:
        mixers: the blocks behind the convolution, see `windeye.compare.sequence.skeleton.decoder`.
        plan: what everything else is.
        seed: of windows and initial weights: equal seeds pair the arms. At least 0.
        device: where it is trained.
        tell: called with the share that is done.

    Raises:
        ValueError: a seed below 0. windeye.data.AssetUnavailable: the text is not here and cannot be fetched.

    Example:
        >>> from windeye.models import AttentionSpec
        >>> plan = LanguagePlan("pydoc", length=16, dim=16, glu_dim=16, steps=2, batch_size=4, held_out=8)
        >>> outcome = train_language((AttentionSpec(heads=1),), plan, seed=0)
        >>> outcome["steps"], outcome["bits_per_byte"] < 9
        (2, True)
    """
    check_seed(seed)
    began = time.process_time()
    model = plan.model(mixers, seed).to(device)
    examples = plan.held_out_windows()
    points, diverged = trained(
        model, plan.batches(seed), steps=plan.steps, every=plan.every, rate=plan.rate, enough=None, tell=tell,
        score=lambda module: bits_per_byte(module, examples), nothing=math.log2(BYTES),
    )  # fmt: skip
    return LanguageOutcome(
        bits_per_byte=points[-1]["score"],
        steps=points[-1]["step"],
        diverged=diverged,
        state_bytes=model.state_bytes(plan.length),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=time.process_time() - began,
        history=points,
    )


def bits_per_byte(model: nn.Module, examples: Sequences) -> float:
    """The mean of ``-log2 p(next byte)``: the base-2 logarithm of the perplexity."""
    return math.log2(score(model, in_batches(examples))["perplexity"])


def in_batches(examples: Sequences, size: int = 64) -> list[Sequences]:
    """Batches that fit a small memory."""
    return [Sequences(*parts) for parts in zip(*(torch.split(t, size) for t in examples), strict=True)]


@lru_cache(maxsize=2)
def _split(name: str) -> Text:
    return Text.split(corpus(name), held_out=0.05, stretches=20)
