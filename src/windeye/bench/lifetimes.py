"""The lifetimes suite: attention over the ``w`` best keys against torch's fused causal attention, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.timing import Timing, compare
from windeye.memory import TopwCache
from windeye.ops import attend, topw_expiry
from windeye.patterns import Expiry

HEADS, HEAD_DIM = 8, 64
STEPS = 20
"""Tokens that are decoded, one by one, in a measurement."""
ROUNDS = 9


@dataclass(frozen=True)
class Case:
    """One sequence length and number of kept keys; ``goal`` is the ratio over causal attention to reach, if any."""

    tokens: int
    w: int
    goal: float | None = None

    @property
    def name(self) -> str:
        return f"{self.tokens} tokens, {self.w} keys"


CASES = (Case(2048, 512), Case(4096, 512), Case(8192, 512, goal=4.0), Case(8192, 1024), Case(16384, 512))
MASKED = 4096
"""Up to here the same relation is also given to torch as a dense mask: 8 heads of 4096 x 4096 numbers are half a GB."""

COLUMNS = (
    "tokens, keys kept",
    "causal",
    "with mask",
    "windeye",
    "over causal",
    "over mask",
    "bound",
    "training over causal",
)
Run = Callable[[], object]


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts. ``quick`` measures three rounds of the two shortest cases: to see that it works."""
    rounds = 3 if quick else ROUNDS
    for case in CASES[:2] if quick else CASES:
        yield f"prefill {case.name}", partial(_prefill, case, rounds)
        yield f"training {case.name}", partial(_training, case, rounds)
    yield "decode", partial(_decode, rounds, (1024, 2048) if quick else (2048, 8192, 32768))


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per measured case: milliseconds of a prefill, ratios, and the ratio of forward + backward."""
    table: list[tuple[str, ...]] = []
    for case in CASES:
        prefill = result["parts"].get(f"prefill {case.name}")
        if prefill is None:
            continue
        timings, training = prefill["timings"], result["parts"][f"training {case.name}"]
        masked = timings.get("masked")
        over_mask = f"{masked['seconds'] / timings['windeye']['seconds']:.1f}x" if masked else ""
        table.append(
            (
                case.name,
                f"{1000 * timings['causal']['seconds']:.0f}",
                f"{1000 * masked['seconds']:.0f}" if masked else "",
                f"{1000 * timings['windeye']['seconds']:.1f}",
                f"{prefill['over_causal']:.1f}x",
                over_mask,
                f"{prefill['flop_bound']:.1f}x",
                f"{training['over_causal']:.1f}x",
            )
        )
    return table


def _tensors(tokens: int, *, grad: bool = False) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Query, key, value and score, heads last; and the same heads first, as torch's kernels like it."""
    generator = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, tokens, HEADS, HEAD_DIM, generator=generator) for _ in range(3)]
    score = torch.randn(1, HEADS, tokens, generator=generator)
    ours, (query, key, value) = [*qkv, score], (t.transpose(1, 2).contiguous() for t in qkv)
    for tensor in (*ours, query, key, value) if grad else ():
        tensor.requires_grad_()
    return ours, (query, key, value)


def _ours(tensors: list[Tensor], w: int) -> Tensor:
    """Selection included, as a layer calls it."""
    query, key, value, score = tensors
    return attend(query, key, value, Expiry(topw_expiry(score, w)), bias=score)


def _prefill(case: Case, rounds: int) -> dict[str, Any]:
    ours, (query, key, value) = _tensors(case.tokens)
    candidates: dict[str, Run] = {
        "causal": lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True),
        "windeye": lambda: _ours(ours, case.w),
        "selection": lambda: topw_expiry(ours[3], case.w),
    }
    bound = Expiry(topw_expiry(ours[3], case.w)).bind((case.tokens,))
    if case.tokens <= MASKED:
        added = ours[3][:, :, None, :].masked_fill(~bound.mask(), -torch.inf)
        candidates["masked"] = lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=added)
    with torch.no_grad():
        timings = compare(candidates, baseline="causal", rounds=rounds)
    return {
        "timings": _plain(timings), "over_causal": timings["windeye"].speedup, "goal": case.goal,
        "flop_bound": HEADS * case.tokens * (case.tokens + 1) / 2 / bound.pairs(),
    }  # fmt: skip


def _training(case: Case, rounds: int) -> dict[str, Any]:
    ours, (query, key, value) = _tensors(case.tokens, grad=True)

    def step(forward: Callable[[], Tensor]) -> Run:
        def both() -> None:
            out = forward()
            torch.autograd.backward(out, out.detach())

        return both

    candidates = {
        "causal": step(lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True)),
        "windeye": step(lambda: _ours(ours, case.w)),
    }
    timings = compare(candidates, baseline="causal", rounds=rounds)
    return {"timings": _plain(timings), "over_causal": timings["windeye"].speedup}


def _decode(rounds: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds per token after so many tokens: a cache of 512 keys against attention over all of them."""
    measured = {}
    for tokens in lengths:
        ours, (queries, keys, values) = _tensors(tokens + STEPS)
        past, *new = (
            [t[:, at] if t.dim() == 4 else t[..., at] for t in ours]
            for at in (slice(tokens), *(slice(i, i + 1) for i in range(tokens, tokens + STEPS)))
        )
        query, key, value = queries[:, :, :1], keys[:, :, :tokens], values[:, :, :tokens]
        with torch.no_grad():
            _, filled = TopwCache.empty(512, *past[1:]).step(*past)

        def steps(cache: TopwCache = filled, new: list[list[Tensor]] = new) -> None:
            for token in new:
                _, cache = cache.step(*token)

        def dense(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> None:
            for _ in range(STEPS):
                F.scaled_dot_product_attention(query, key, value)

        with torch.no_grad():
            timings = compare({"dense": dense, "windeye": steps}, baseline="dense", rounds=rounds)
        measured[str(tokens)] = {
            "milliseconds": {name: 1000 * timing.seconds / STEPS for name, timing in timings.items()},
            "over_dense": timings["windeye"].speedup,
        }
    return measured


def _plain(timings: dict[str, Timing]) -> dict[str, Any]:
    return {name: asdict(timing) for name, timing in timings.items()}


__all__ = ["CASES", "COLUMNS", "Case", "parts", "rows"]
