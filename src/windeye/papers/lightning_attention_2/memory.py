"""Memory of a pass, and of a long stream in pieces whose state is carried."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TypedDict

import torch
from torch import Tensor

import windeye
from windeye.bench.timing import can_measure_memory, peak_extra_bytes
from windeye.papers.lightning_attention_2.plan import PARALLEL, Plan
from windeye.papers.lightning_attention_2.speed import HEAD_DIM, HEADS, KERNEL

_PASS = """
import torch
from windeye.papers.lightning_attention_2.speed import one_pass
torch.set_num_threads(1)
one_pass({form!r}, 64)()
run = one_pass({form!r}, {tokens})
"""

_STREAM = """
import torch
from windeye.papers.lightning_attention_2.memory import stream
torch.set_num_threads(1)
stream(2 * {piece}, {piece})
def run():
    return stream({tokens}, {piece})
"""


class Memory(TypedDict):
    """Peak mebibytes beyond inputs and outputs, by form and tokens; empty where the system does not tell.

    ``error``: of a stream's outputs, see `stream_error`.
    """

    passes: dict[str, dict[str, float]]
    streams: dict[str, float]
    error: float
    seconds: float


def pieces(tokens: int, piece: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A stream of random tokens, one piece at a time in memory."""
    for place in range(0, tokens, piece):
        generator = torch.Generator().manual_seed(place)
        q, k, v = (torch.randn(1, piece, HEADS, HEAD_DIM, generator=generator) for _ in range(3))
        yield q, k, v


def stream(tokens: int, piece: int) -> Tensor:
    """The state after a stream, read piece by piece."""
    decay = -windeye.decay.tnl_rates(HEADS, layer=12, layers=24).float()
    state: Tensor | None = None
    with torch.no_grad():
        for q, k, v in pieces(tokens, piece):
            _, state = windeye.linear_attention(q, k, v, log_decay=decay, initial_state=state, return_state=True)
    assert state is not None
    return state


def stream_error(tokens: int, piece: int) -> float:
    """Largest difference of the outputs of pieces from those of one pass in float64, over the largest output."""
    decay = -windeye.decay.tnl_rates(HEADS, layer=12, layers=24)
    whole = [torch.cat(parts, dim=1).double() for parts in zip(*pieces(tokens, piece), strict=True)]
    with torch.no_grad():
        expected = windeye.linear_attention(*whole, log_decay=decay)
        state, worst = None, 0.0
        for place, (q, k, v) in zip(range(0, tokens, piece), pieces(tokens, piece), strict=True):
            out, state = windeye.linear_attention(
                q, k, v, log_decay=decay.float(), initial_state=state, return_state=True
            )
            worst = max(worst, (out.double() - expected[:, place : place + piece]).abs().max().item())
    return worst / expected.abs().max().item()


def measure(plan: Plan) -> Memory:
    """The middle of three fresh processes; the parallel form is measured at a quarter of the tokens, where it fits."""
    began = time.perf_counter()
    readings = min(3, plan.rounds)
    found = Memory(passes={}, streams={}, error=stream_error(plan.streams[0], plan.piece), seconds=0.0)
    if can_measure_memory():
        for form, tokens in ((KERNEL, plan.measured), (PARALLEL, [n // 4 for n in plan.measured])):
            found["passes"][form] = {str(n): _mebibytes(_PASS.format(form=form, tokens=n), readings) for n in tokens}
        for n in plan.streams:
            found["streams"][str(n)] = _mebibytes(_STREAM.format(tokens=n, piece=plan.piece), readings)
    found["seconds"] = time.perf_counter() - began
    return found


def _mebibytes(code: str, readings: int) -> float:
    return statistics.median(peak_extra_bytes(code) for _ in range(readings)) / 2**20
