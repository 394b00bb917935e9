"""The mixers suite: every registered mixer of maps against its own textbook form, and against dense fused attention.

A layer is measured whole, with its projections, in inference mode and in training (forward and backward). Its textbook
form has the same weights and computes the same numbers with maps of weights in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from windeye.bench.table import ratio
from windeye.bench.textbook import textbook
from windeye.bench.timing import Candidate, compare
from windeye.nn.mixers import MIXERS, FullSpec, TokenMixer

GOAL = 1.0
"""Of the textbook form's time over ours: no mixer is slower than its own eager form."""
MOST_SECONDS = 60.0
MOST_WEIGHTS = 2**26
"""Textbook forms of full attention with more weights than this, a quarter of a gigabyte, are not measured."""


@dataclass(frozen=True)
class Case:
    """Maps, and whether gradients are taken."""

    batch: int
    side: int
    dim: int
    train: bool

    @property
    def heads(self) -> int:
        return self.dim // 32

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.side}x{self.side} x {self.dim}, {'both passes' if self.train else 'inference'}"


STAGES = ((4, 56, 64), (8, 28, 128), (16, 14, 256))
"""The first three stages of a small backbone at 224 pixels; there every mixer's windows and regions divide."""
CASES = tuple(Case(*stage, train) for train in (False, True) for stage in STAGES)
QUICK = (Case(1, 14, 64, False), Case(1, 14, 64, True))
COLUMNS = ("layer", "input", "ms", "textbook ms", "textbook over ours", "dense over ours")


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts. ``quick`` measures a small map in three rounds: to see that it works."""
    for case in QUICK if quick else CASES:
        for kind in MIXERS:
            yield f"{kind}, {case.name}", partial(measure, kind, case, 3 if quick else 9)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per layer and input."""
    table: list[tuple[str, ...]] = []
    for kind in MIXERS:
        for case in (*CASES, *QUICK):
            found = result["parts"].get(f"{kind}, {case.name}")
            if found is not None:
                book = found.get("textbook")
                table.append(
                    (
                        kind,
                        case.name,
                        f"{1000 * found['ours']['seconds']:.1f}",
                        f"{1000 * book['seconds']:.1f}" if book else "",
                        ratio(1 / book["speedup"]) if book else "",
                        ratio(1 / found["dense"]["speedup"]) if "dense" in found else "",
                    )
                )
    return table


def measure(kind: str, case: Case, rounds: int) -> dict[str, Any]:
    """Medians, and the speed of each form over ours."""
    torch.manual_seed(0)
    layer = MIXERS[kind]().build(case.dim, case.heads)
    x = torch.randn(case.batch, case.side, case.side, case.dim, requires_grad=case.train)
    candidates: dict[str, Candidate] = {"ours": partial(one, layer, x)}
    if kind != FullSpec.kind or case.batch * case.heads * case.side**4 <= MOST_WEIGHTS:
        candidates["textbook"] = partial(one, textbook(layer), x)
    if kind != FullSpec.kind:
        candidates["dense"] = partial(one, FullSpec().build(case.dim, case.heads), x)
    timings = compare(candidates, baseline="ours", rounds=rounds, most_seconds=MOST_SECONDS)
    return {name: asdict(timing) for name, timing in timings.items()} | {"goal": GOAL}


def one(layer: TokenMixer, x: Tensor) -> tuple[Tensor, ...]:
    """One pass without gradients, or both passes; what it leaves."""
    if not x.requires_grad:
        with torch.inference_mode():
            return (layer.eval()(x),)
    wanted = (x, *layer.parameters())
    return torch.autograd.grad(layer.train()(x).sum(), wanted, allow_unused=True)
