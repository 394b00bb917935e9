"""The recurrence suite: our linear attention kernel against torch's causal attention and our chunked form in torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.table import milliseconds, ratio
from windeye.bench.timing import Candidate, can_measure_memory, compare, peak_extra_bytes
from windeye.kernels.recurrence.decay import tnl_rates
from windeye.ops import linear_attention

HEADS, HEAD_DIM = 8, 64
ROUNDS = 9
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEST_DENSE = 8192


@dataclass(frozen=True)
class Case:
    """One kind of recurrence at 4,096 tokens."""

    name: str
    decay: str = "none"
    head_dim: int = HEAD_DIM
    feature_map: str | None = None
    normalize: bool = False
    dtype: torch.dtype = torch.float32


CASES = (
    Case("no decay"),
    Case("decay per head", decay="head"),
    Case("decay per token", decay="token"),
    Case("bfloat16, decay per head", decay="head", dtype=torch.bfloat16),
    Case("Based: Taylor features of 16, denominator", head_dim=16, feature_map="taylor2", normalize=True),
)

COLUMNS = ("forward + backward", "dense", "torch chunks", "windeye", "over dense", "over torch", "tokens/s")


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts, each a function that measures and returns plain values; ``quick`` to see it works."""
    rounds = 3 if quick else ROUNDS
    for case in CASES:
        yield f"training {case.name}", partial(_case, case, 512 if quick else 4096, rounds)
    for tokens in LENGTHS[:2] if quick else LENGTHS:
        yield f"length {tokens}", partial(_length, tokens, rounds)
    yield "constant speed", partial(_constant_speed, LENGTHS[:2] if quick else LENGTHS[1:], rounds)
    yield "decoding", partial(_decoding, rounds)
    yield "memory", _memory


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case and length: milliseconds of forward + backward, and ratios."""
    table: list[tuple[str, ...]] = []
    for name, part in result["parts"].items():
        if not name.startswith(("training ", "length ")):
            continue
        timings = part["timings"]
        dense, chunks = timings.get("dense"), timings.get("torch chunks")
        table.append(
            (
                name.removeprefix("training ").replace("length ", "tokens "),
                milliseconds(dense["seconds"]) if dense else "",
                milliseconds(chunks["seconds"]) if chunks else "",
                milliseconds(timings["windeye"]["seconds"]),
                ratio(part["over_dense"]) if dense else "",
                ratio(part["over_torch"]) if chunks else "",
                f"{part['tokens_per_second']:,.0f}",
            )
        )
    return table


def _case(case: Case, tokens: int, rounds: int) -> dict[str, Any]:
    return _against(case, tokens, rounds, dense=True)


def _length(tokens: int, rounds: int) -> dict[str, Any]:
    return _against(CASES[1], tokens, rounds, dense=tokens <= LONGEST_DENSE)


def _against(case: Case, tokens: int, rounds: int, *, dense: bool) -> dict[str, Any]:
    candidates: dict[str, Candidate] = {
        "windeye": _linear(case, tokens, "cpu"),
        "torch chunks": _linear(case, tokens, "torch"),
    }
    if dense:
        candidates["dense"] = _dense(case, tokens)
    timings = compare(candidates, baseline="windeye", rounds=rounds)
    return {
        "tokens": tokens,
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "over_dense": 1 / timings["dense"].speedup if dense else None,
        "over_torch": 1 / timings["torch chunks"].speedup,
        "tokens_per_second": tokens / timings["windeye"].seconds,
    }


def _constant_speed(lengths: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Tokens per second at every length, lengths taking turns; each run covers the tokens of the longest."""
    longest = lengths[-1]

    def repeated(tokens: int) -> Callable[[], None]:
        step = _linear(CASES[1], tokens, "cpu")

        def run() -> None:
            for _ in range(longest // tokens):
                step()

        return run

    timings = compare({str(n): repeated(n) for n in lengths}, baseline=str(longest), rounds=rounds)
    speeds = {name: longest / timing.seconds for name, timing in timings.items()}
    return {"tokens_per_second": speeds, "fastest_over_slowest": max(speeds.values()) / min(speeds.values())}


def _decoding(rounds: int) -> dict[str, Any]:
    """Microseconds of one token with its state, batch 1."""
    result = {}
    for case in (CASES[1], CASES[4]):
        q, k, v, decay = _inputs(case, 1, grad=False)
        options: dict[str, Any] = {"log_decay": decay, "feature_map": case.feature_map, "normalize": case.normalize}
        with torch.no_grad():
            _, state = linear_attention(q, k, v, return_state=True, **options)

            def steps(
                q: Tensor = q, k: Tensor = k, v: Tensor = v, state: Tensor = state, options: dict[str, Any] = options
            ) -> None:
                for _ in range(100):
                    _, state = linear_attention(q, k, v, initial_state=state, return_state=True, **options)

            timing = compare({"step": steps}, baseline="step", rounds=rounds)["step"]
        result[case.name] = {
            "microseconds": 1e4 * timing.seconds,
            "state_bytes": state.numel() * state.element_size(),
        }
    return result


_MEASURED = """
import torch, windeye
def inputs(n):
    return [torch.randn(1, n, {heads}, {head_dim}, requires_grad=True) for _ in range(3)]
def step(tensors):
    out = windeye.linear_attention(*tensors)
    return (out, *torch.autograd.grad(out, tensors, torch.ones(()).expand(out.shape)))
step(inputs(64))
tensors = inputs({tokens})
def run():
    return step(tensors)
"""


def _memory() -> dict[str, float] | None:
    """Mebibytes of a forward and backward pass beyond inputs, outputs and gradients; None where it is not told."""
    if not can_measure_memory():
        return None
    measured = {}
    for tokens in (8192, 32768):
        code = _MEASURED.format(tokens=tokens, heads=HEADS, head_dim=HEAD_DIM)
        measured[f"{tokens} tokens"] = statistics.median(peak_extra_bytes(code) for _ in range(3)) / 2**20
    return measured


def _inputs(case: Case, tokens: int, *, grad: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, tokens, HEADS, dim, generator=generator).to(case.dtype).requires_grad_(grad)
        for dim in (case.head_dim, case.head_dim, HEAD_DIM)
    )
    decay = None
    if case.decay == "head":
        decay = -tnl_rates(HEADS, layer=0, layers=24).float()
    elif case.decay == "token":
        decay = (-0.1 * torch.rand(1, tokens, HEADS, generator=generator)).requires_grad_(grad)
    return q, k, v, decay


def _linear(case: Case, tokens: int, backend: str) -> Callable[[], None]:
    q, k, v, decay = _inputs(case, tokens, grad=True)
    leaves = [q, k, v] if decay is None or not decay.requires_grad else [q, k, v, decay]

    def step() -> None:
        out = linear_attention(
            q, k, v, log_decay=decay, feature_map=case.feature_map, normalize=case.normalize, form="chunk",
            backend=backend,
        )  # fmt: skip
        torch.autograd.grad(out, leaves, out.detach())

    return step


def _dense(case: Case, tokens: int) -> Callable[[], None]:
    """Causal softmax attention of the same widths, in its favourite layout."""
    q, k, v, _ = _inputs(case, tokens, grad=False)
    q, k, v = (t.transpose(1, 2).contiguous().requires_grad_() for t in (q, k, v))

    def step() -> None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.autograd.grad(out, (q, k, v), out.detach())

    return step


__all__ = ["CASES", "COLUMNS", "Case", "parts", "rows"]
