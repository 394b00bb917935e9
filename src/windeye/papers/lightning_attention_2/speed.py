"""Forward and backward passes of the operator at lengths that double, in every form."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

import windeye
from windeye.bench.timing import compare
from windeye.papers.lightning_attention_2.plan import PARALLEL, SDPA, Plan
from windeye.report import Tell

HEADS, HEAD_DIM = 4, 64
KERNEL, TORCH = "blocks, C++", "blocks, torch"
FORMS = (KERNEL, TORCH, PARALLEL, SDPA)


class Speeds(TypedDict):
    """One repetition. ``over_longest``: the kernel's tokens per second at each length over those at the longest.

    ``seconds_per_pass`` and ``over_kernel`` (a form's time over the kernel's in the same round) by length, then form.
    """

    over_longest: dict[str, float]
    seconds_per_pass: dict[str, dict[str, float]]
    over_kernel: dict[str, dict[str, float]]
    seconds: float


def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and log-decay; rates are those of the first layer, where the decay matters most."""
    generator = torch.Generator().manual_seed(tokens)
    q, k, v = (torch.randn(1, tokens, HEADS, HEAD_DIM, generator=generator) for _ in range(3))
    return q, k, v, -windeye.decay.tnl_rates(HEADS, layer=0, layers=24).float()


def one_pass(form: str, tokens: int) -> Callable[[], tuple[Tensor, ...]]:
    """The output and the gradients of query, key and value, heads last, under the output as its own cotangent."""
    q, k, v, decay = inputs(tokens)
    if form == SDPA:  # in its favourite layout
        q, k, v = (t.transpose(1, 2).contiguous() for t in (q, k, v))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    kind, backend = {KERNEL: ("chunk", "auto"), TORCH: ("chunk", "torch")}.get(form, ("parallel", "torch"))

    def run() -> tuple[Tensor, ...]:
        if form == SDPA:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            out = windeye.linear_attention(q, k, v, log_decay=decay, form=kind, backend=backend)
        return (out.detach(), *torch.autograd.grad(out, (q, k, v), out.detach()))

    return run


def speeds(plan: Plan, tell: Tell) -> Speeds:
    """Lengths of the kernel take turns, each over as many tokens in all; then at every length the forms take turns."""
    began = time.perf_counter()
    longest = max(plan.lengths)
    found = Speeds(over_longest=_constant(plan), seconds_per_pass={}, over_kernel={}, seconds=0.0)
    for n in plan.lengths:
        forms = [form for form in FORMS if n <= plan.longest.get(form, longest)]
        timings = compare(
            {form: one_pass(form, n) for form in forms}, baseline=KERNEL, rounds=plan.rounds,
            most_seconds=plan.most_seconds,
        )  # fmt: skip
        found["seconds_per_pass"][str(n)] = {form: timings[form].seconds for form in forms}
        found["over_kernel"][str(n)] = {form: 1 / timings[form].speedup for form in forms}
        tell((1 + plan.lengths.index(n)) / len(plan.lengths))
    found["seconds"] = time.perf_counter() - began
    return found


def _constant(plan: Plan) -> dict[str, float]:
    longest = max(plan.lengths)

    def repeated(n: int) -> Callable[[], None]:
        run = one_pass(KERNEL, n)

        def runs() -> None:
            for _ in range(longest // n):
                run()

        return runs

    timings = compare(
        {str(n): repeated(n) for n in plan.lengths}, baseline=str(longest), rounds=plan.rounds,
        most_seconds=20 * plan.most_seconds,
    )  # fmt: skip
    return {n: timing.speedup for n, timing in timings.items()}
