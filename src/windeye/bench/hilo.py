"""The hilo suite: one layer of HiLo against other mixers of maps, as its paper measured them, and as they run fused.

``paper`` is the published harness: textbook forms, training mode with autograd on, no warm-up, the mean of 30 passes.
``clean`` is the fused layers in inference mode, warmed up, medians of rounds; textbook forms run beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from windeye.bench.table import ratio
from windeye.bench.textbook import textbook
from windeye.bench.timing import compare
from windeye.nn.mixers import (
    FullMixer,
    HiLoMixer,
    SpatialReductionMixer,
    StripeMixer,
    TokenMixer,
    WindowMixer,
)
from windeye.nn.mixers.plan import multiply_adds

PASSES = 30
MOST_SECONDS = 300.0
"""After so long no further round of a clean part begins."""
MOST_WEIGHTS = 2**28
"""Larger maps of weights than this, a gigabyte, are not made."""


@dataclass(frozen=True)
class Case:
    """One input; sides of stripes and windows divide it."""

    batch: int
    side: int
    dim: int
    heads: int
    paper: bool = False
    """Whether it is measured the published way, too."""

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.side}x{self.side} x {self.dim}"


CASES = (Case(64, 14, 768, 12, paper=True), Case(16, 28, 192, 6), Case(16, 56, 128, 4))
QUICK = (Case(2, 14, 768, 12, paper=True),)
LAYERS: dict[str, Callable[[int, int], TokenMixer]] = {
    "full": FullMixer,
    "spatial reduction by 2": partial(SpatialReductionMixer, ratio=2),
    "windows of 7": partial(WindowMixer, window=7, bias_table=False),
    "stripes of 7": partial(StripeMixer, stripe=7),
    "HiLo": partial(HiLoMixer, window=2, alpha=0.9),
}
"""The layers of the published table that are at hand, with its settings."""
PUBLISHED = {"full": 2.04, "spatial reduction by 2": 1.45, "windows of 7": 1.63, "stripes of 7": 3.17}
"""HiLo's images per second over those of each layer, on the paper's CPU (hilo spec)."""
GOALS = {"spatial reduction by 2": 1.4, "windows of 7": 1.6}
"""What the paper's abstract says, of its own harness."""
CLEAN_GOALS = {"spatial reduction by 2": 1.3, "windows of 7": 1.4, "textbook full": 1.7}

COLUMNS = (
    "input, layer", "M parameters", "M multiply-adds", "paper ms", "HiLo over it", "published", "clean ms",
    "HiLo over it", "over its textbook form",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts. ``quick`` measures three rounds of two images: to see that it works."""
    rounds = 3 if quick else PASSES
    for case in QUICK if quick else CASES:
        if case.paper:
            yield f"paper {case.name}", partial(_paper, case, rounds)
        yield f"clean {case.name}", partial(_clean, case, rounds)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per input and layer."""
    table: list[tuple[str, ...]] = []
    for case in (*CASES, *QUICK):
        clean = result["parts"].get(f"clean {case.name}")
        if clean is None:
            continue
        paper = result["parts"].get(f"paper {case.name}")
        for layer, costs in clean["costs"].items():
            timing = clean["timings"][layer]
            table.append(
                (
                    f"{case.name}, {layer}",
                    f"{costs['parameters'] / 1e6:.2f}",
                    f"{costs['multiply_adds'] / 1e6:.1f}",
                    f"{1000 * paper['seconds'][layer]:.0f}" if paper else "",
                    ratio(paper["hilo_over"][layer]) if paper else "",
                    ratio(PUBLISHED[layer]) if paper and layer in PUBLISHED else "",
                    f"{1000 * timing['seconds']:.0f}",
                    ratio(clean["hilo_over"][layer]),
                    ratio(clean["over_textbook"][layer]) if layer in clean["over_textbook"] else "",
                )
            )
    return table


def costs(mixer: TokenMixer, side: int) -> dict[str, int]:
    """Parameters, and multiply-adds per image, of products alone."""
    counted = 0

    def count(module: torch.nn.Module, _inputs: object, out: Tensor) -> None:
        nonlocal counted
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            counted += out.numel() * module.weight[0].numel()

    handles = [module.register_forward_hook(count) for module in mixer.modules()]
    try:
        with torch.no_grad():
            x = torch.zeros(1, side, side, mixer.dim, device=next(mixer.parameters()).device)
            plans = mixer.plans(x)
            mixer.finish(x.reshape(1, side, side, mixer.heads, mixer.head_dim), x, plans)
    finally:
        for handle in handles:
            handle.remove()
    counted += sum(map(multiply_adds, plans))
    return {"parameters": sum(p.numel() for p in mixer.parameters()), "multiply_adds": counted}


def _layers(case: Case) -> tuple[dict[str, TokenMixer], Tensor]:
    torch.manual_seed(0)
    layers = {name: build(case.dim, case.heads) for name, build in LAYERS.items()}
    return layers, torch.randn(case.batch, case.side, case.side, case.dim)


def _paper(case: Case, passes: int) -> dict[str, Any]:
    """Layers take turns, so that a machine whose speed drifts does not decide; nothing else differs from the paper."""
    layers, x = _layers(case)
    layers = {name: textbook(layer) for name, layer in layers.items()}
    seconds = dict.fromkeys(layers, 0.0)
    for _ in range(passes):
        for name, layer in layers.items():
            start = time.perf_counter()
            layer(x)
            seconds[name] += (time.perf_counter() - start) / passes
    over = {name: value / seconds["HiLo"] for name, value in seconds.items()}
    return {"seconds": seconds, "passes": passes, "hilo_over": over, "goals": GOALS}


def _clean(case: Case, rounds: int) -> dict[str, Any]:
    layers, x = _layers(case)
    candidates: dict[str, Callable[[], object]] = {}
    for name, layer in layers.items():
        layer.eval()
        candidates[name] = partial(layer, x)
        if name != "full" or case.batch * case.heads * case.side**4 <= MOST_WEIGHTS:
            candidates[f"textbook {name}"] = partial(textbook(layer), x)
    with torch.inference_mode():
        for _ in range(min(4, rounds)):  # one more warm-up is inside of `compare`
            for run in candidates.values():
                run()
        timings = compare(candidates, baseline="HiLo", rounds=rounds, most_seconds=MOST_SECONDS)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "costs": {name: costs(layer, case.side) for name, layer in layers.items()},
        "hilo_over": {name: 1 / timing.speedup for name, timing in timings.items()},
        "over_textbook": {
            name: timings[name].speedup / timings[f"textbook {name}"].speedup
            for name in layers
            if f"textbook {name}" in timings
        },
        "goals": CLEAN_GOALS,
    }
