"""How long a block takes, and what in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor, nn

from windeye.bench.timing import compare
from windeye.models.vision import Block, ConvSpec, StageSpec
from windeye.nn.mixers import MultiScaleFusionMixer, MultiScaleFusionSpec, StripeSpec, TokenMixerSpec, WindowSpec
from windeye.nn.mixers.plan import attended


@dataclass(frozen=True)
class Case:
    """Maps of a stage."""

    batch: int
    side: int
    dim: int

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.side}x{self.side} x {self.dim}"


CASES = (Case(8, 56, 64), Case(8, 28, 128))
BLOCK, SUMS, FUSION = "block of fusion", "sums over positions", "attention to global tokens"
WINDOWS, STRIPES = "block of windows", "block of stripes"


class Speeds(TypedDict):
    """Medians in seconds of a case, in inference."""

    medians: dict[str, float]
    seconds: float


def measure(case: Case, rounds: int) -> Speeds:
    """A block, its global tokens and its fusion alone, and blocks of windows and of stripes with as many parameters.

    The linear map over positions is not among those parameters: its size is that of the map.
    """
    began = time.perf_counter()
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.side, case.side, case.dim)
    fusion = _block(case, MultiScaleFusionSpec(case.side), 4.0)
    mixer = fusion.mixer
    assert isinstance(mixer, MultiScaleFusionMixer)
    spare = mixer.tokens.weight.numel() + mixer.tokens.bias.numel()
    wanted = _size(fusion) - spare
    candidates: dict[str, Callable[[], Tensor]] = {
        BLOCK: partial(fusion, x),
        WINDOWS: partial(_equal(case, WindowSpec(), wanted), x),
        STRIPES: partial(_equal(case, StripeSpec(), wanted), x),
    }
    with torch.inference_mode():
        near, tokens = x + mixer.local(x), mixer.tokens(x)
        candidates |= {SUMS: partial(mixer.tokens, x), FUSION: partial(_fused, mixer, near, tokens)}
        timings = compare(dict(candidates), baseline=BLOCK, rounds=rounds)
    medians = {name: timings[BLOCK].seconds / timing.speedup for name, timing in timings.items()}
    return Speeds(medians=medians, seconds=time.perf_counter() - began)


def _fused(mixer: MultiScaleFusionMixer, local: Tensor, tokens: Tensor) -> Tensor:
    return mixer.proj(attended(mixer.asks(local, tokens)).flatten(-2))


def _block(case: Case, spec: TokenMixerSpec, ratio: float) -> Block:
    return Block(StageSpec(case.dim, case.dim // 32, ConvSpec(), (), ratio=ratio), spec, 0.0).eval()


def _equal(case: Case, spec: TokenMixerSpec, wanted: int) -> Block:
    """With the feed-forward part that makes the block so large."""
    missing = wanted - _size(_block(case, spec, 1.0))
    return _block(case, spec, 1.0 + missing / (2 * case.dim + 1) / case.dim)


def _size(block: nn.Module) -> int:
    return sum(p.numel() for p in block.parameters())
