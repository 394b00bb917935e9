"""The decoding suite: what a token costs after a long past, for every mixer whose state is bounded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.table import ratio
from windeye.bench.timing import Candidate, compare
from windeye.memory import State
from windeye.models.mixers import MIXERS, AttentionSpec, MixerSpec
from windeye.nn import CausalAttention, SequenceMixer

HEADS, HEAD_DIM = 8, 64
DIM = HEADS * HEAD_DIM
POSITIONS = (512, 2048, 8192, 32768)
ROUNDS, STEPS = 15, 8
ALL, FUSED = "attention, all of the past", "torch's attention, all of the past"

COLUMNS = ("tokens before", *map(str, POSITIONS), "slowest over fastest", "state, KiB", "over torch's attention")


def specs() -> dict[str, MixerSpec]:
    """Every registered mixer whose state does not grow without bound, and a sliding window, by name.

    Example:
        >>> {"lightning", "taylor", "attention, window 256", "convolution"} <= specs().keys(), "attention" in specs()
        (True, False)
    """
    found = {kind.replace("_", " "): _with_heads(spec()) for kind, spec in MIXERS.items()}
    found["attention, window 256"] = AttentionSpec(HEADS, window=256)
    return {name: spec for name, spec in found.items() if is_bounded(layer_of(spec))}


def is_bounded(layer: SequenceMixer) -> bool:
    """Whether a past twice as long as the longest one measured would take no more memory."""
    return layer.state_bytes(POSITIONS[-1]) == layer.state_bytes(2 * POSITIONS[-1])


def layer_of(spec: MixerSpec) -> SequenceMixer:
    """A first layer of a deep model, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spec.build(DIM, 0, 24).eval()


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts, one per mixer; ``quick`` measures three rounds after short pasts: to see it works."""
    positions = (32, 64) if quick else POSITIONS
    for name, spec in (specs() | {ALL: AttentionSpec(HEADS)}).items():
        yield name, partial(_decode, spec, positions, 3 if quick else ROUNDS)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Milliseconds per token of every mixer after each past, cheapest first; torch's attention comes last."""
    table = [
        (
            name, *(f"{ms:.2f}" for ms in part["milliseconds"]), f"{part['slowest_over_fastest']:.2f}x",
            f"{part['state_bytes'] / 1024:,.0f}", ratio(part["over_fused"][-1]),
        )
        for name, part in sorted(result["parts"].items(), key=lambda item: item[1]["milliseconds"][-1])
    ]  # fmt: skip
    fused = [statistics.median(times) for times in zip(*(p["fused"] for p in result["parts"].values()), strict=True)]
    grown = layer_of(AttentionSpec(HEADS)).state_bytes(POSITIONS[-1])
    told = (f"{max(fused) / min(fused):.2f}x", f"{grown / 1024:,.0f}", ratio(1.0))
    return [*table, (FUSED, *(f"{ms:.2f}" for ms in fused), *told)]


def _with_heads(spec: MixerSpec) -> MixerSpec:
    return replace(spec, heads=HEADS) if "heads" in {field.name for field in fields(spec)} else spec


def _filled(spec: MixerSpec, tokens: int) -> tuple[SequenceMixer, State]:
    """A layer and its state after so many random tokens."""
    layer = layer_of(spec)
    generator = torch.Generator().manual_seed(tokens)
    with torch.no_grad():
        _, state = layer(torch.randn(1, tokens, DIM, generator=generator), return_state=True)
    return layer, state


def _steps(layer: SequenceMixer, state: State) -> Candidate:
    """``STEPS`` tokens, each continuing the state of the one before, as decoding goes on."""
    token = _token()

    def run() -> None:
        nonlocal state
        for _ in range(STEPS):
            _, state = layer.step(token, state)

    return run


def _fused(tokens: int) -> Candidate:
    """``STEPS`` tokens by torch's fused attention over a cache with room for them, in its favourite layout."""
    layer, token = CausalAttention(DIM, HEADS, rotary_base=None), _token()
    keys, values = (torch.randn(1, HEADS, tokens + STEPS, HEAD_DIM) for _ in range(2))

    def run() -> None:
        for n in range(tokens, tokens + STEPS):
            query, keys[:, :, n], values[:, :, n] = layer.qkv_proj(token).view(1, 3, HEADS, HEAD_DIM).unbind(1)
            past = keys[:, :, : n + 1], values[:, :, : n + 1]
            layer.out_proj(F.scaled_dot_product_attention(query[:, :, None], *past).reshape(1, DIM))

    return run


def _token() -> Tensor:
    return torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))


def _decode(spec: MixerSpec, positions: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """A mixer and torch's attention over all of the past, after every past, taking turns."""
    candidates = {f"own {n}": _steps(*_filled(spec, n)) for n in positions}
    candidates |= {f"fused {n}": _fused(n) for n in positions}
    with torch.no_grad():
        timings = compare(candidates, baseline=f"own {positions[0]}", rounds=rounds)
    own, fused = ([timings[f"{which} {n}"] for n in positions] for which in ("own", "fused"))
    relative = [1 / timing.speedup for timing in own]
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "milliseconds": [1000 * timing.seconds / STEPS for timing in own],
        "fused": [1000 * timing.seconds / STEPS for timing in fused],
        "slowest_over_fastest": max(relative) / min(relative),
        "over_fused": [ours.speedup / theirs.speedup for ours, theirs in zip(own, fused, strict=True)],
        "state_bytes": layer_of(spec).state_bytes(positions[-1]),
    }


__all__ = ["ALL", "COLUMNS", "FUSED", "POSITIONS", "parts", "rows", "specs"]
