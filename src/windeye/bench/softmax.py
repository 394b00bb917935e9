"""The softmax suite: our kernel against torch's fused dense attention and compiled FlexAttention, in one run."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any

import torch

from windeye.bench import peers
from windeye.bench.table import milliseconds, ratio
from windeye.bench.timing import can_measure_memory, compare, peak_extra_bytes
from windeye.kernels.softmax import lanes
from windeye.ops import explain
from windeye.patterns import Full, Neighborhood, Pattern, Sliding, parse
from windeye.tiling import simulate

HEADS, HEAD_DIM = 8, 64
ROUNDS = 9


@dataclass(frozen=True)
class Goal:
    """A ratio to reach: below ``minimum`` the case failed, ``aim`` is what we want."""

    minimum: float
    aim: float


@dataclass(frozen=True)
class Case:
    """One shape and pattern. ``dense`` is the goal over dense attention forward; half of it over forward + backward."""

    name: str
    pattern: Pattern
    grid: tuple[int, ...]
    dense: Goal
    flex: Goal | None


GRID_FLEX = Goal(4, 10)
CASES = (
    Case("64x64, kernel 13", Neighborhood(13), (64, 64), Goal(8, 14), GRID_FLEX),
    Case("64x64, kernel 16, stride 8", Neighborhood(16, stride=8), (64, 64), Goal(10, 14), GRID_FLEX),
    Case("16x32x32, kernel 8x12x12", Neighborhood((8, 12, 12)), (16, 32, 32), Goal(5, 9), GRID_FLEX),
    Case(
        "16x32x32, kernel 8x12x12, stride 4", Neighborhood((8, 12, 12), stride=4), (16, 32, 32), Goal(8, 12), GRID_FLEX
    ),
    Case("8192, causal window 256", Sliding(256), (8192,), Goal(8, 12), Goal(1.2, 2)),
    Case("64x64, everything", Full(), (64, 64), Goal(0.9, 1.0), None),
)  # fmt: skip

COLUMNS = ("tokens, window", "dense", "Flex", "windeye", "over dense", "over Flex", "bound", "training over dense")

RANKED = (
    "neighborhood 5", "neighborhood 9", "neighborhood 13", "neighborhood 13 stride 4", "neighborhood 16 stride 8",
    "neighborhood 16 stride 16", "neighborhood 21", "neighborhood 21 stride 8", "neighborhood 24 stride 8",
    "neighborhood 32", "neighborhood 32 stride 16", "neighborhood 8 dilation 4", "neighborhood 13x33",
    "neighborhood 48 stride 8", "blocks 16",
)  # fmt: skip
"""Settings on 64 x 64 tokens whose measured order is compared with the predicted one."""


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts, each a function that measures and returns plain values.

    ``quick`` leaves out FlexAttention (it compiles for seconds) and all but three rounds: to see that it works.
    """
    rounds = 3 if quick else ROUNDS
    for case in CASES:
        yield f"forward {case.name}", partial(_forward, case, rounds, flex=not quick)
        yield f"training {case.name}", partial(_training, case, rounds)
        yield f"bfloat16 {case.name}", partial(_bfloat16, case, rounds)
    yield "scaling", partial(_scaling, rounds)
    yield "memory", _memory
    yield "ranking", partial(_ranking, 3 if quick else 7)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case: milliseconds of a forward pass, ratios, and the ratio of forward + backward."""
    parts = result["parts"]
    table: list[tuple[str, ...]] = []
    for case in CASES:
        forward = parts[f"forward {case.name}"]
        training = parts[f"training {case.name}"]
        timings = forward["timings"]
        flex = timings.get("flex")
        table.append(
            (
                case.name,
                milliseconds(timings["dense"]["seconds"]),
                milliseconds(flex["seconds"]) if flex else "",
                milliseconds(timings["windeye"]["seconds"]),
                ratio(forward["over_dense"]),
                ratio(forward["over_flex"]) if flex else "",
                ratio(forward["flop_bound"]),
                ratio(training["over_dense"]),
            )
        )
    return table


def _forward(case: Case, rounds: int, *, flex: bool) -> dict[str, Any]:
    data = peers.inputs(case.grid, heads=HEADS, head_dim=HEAD_DIM)
    candidates = {"dense": peers.dense(data, case.pattern), "windeye": peers.windeye(data, case.pattern)}
    if flex and case.flex is not None:
        candidates["flex"] = peers.flex(data, case.pattern)
    with torch.no_grad():
        timings = compare(candidates, baseline="dense", rounds=rounds)
    ours = explain(data.query, data.key, data.value, case.pattern)
    result = {name: asdict(timing) for name, timing in timings.items()}
    return {
        "pattern": case.pattern.spec, "grid": case.grid, "timings": result, "over_dense": timings["windeye"].speedup,
        "over_flex": timings["flex"].seconds / timings["windeye"].seconds if "flex" in timings else None,
        "flop_bound": ours.flop_bound * (0.5 if _is_causal(case) else 1.0), "backend": ours.backend,
        "gflops": ours.flops / timings["windeye"].seconds / 1e9,
    }  # fmt: skip


def _is_causal(case: Case) -> bool:
    """Dense causal attention does half of the work, so the bound over it is half as high."""
    return isinstance(case.pattern, Sliding)


def _training(case: Case, rounds: int) -> dict[str, Any]:
    data = peers.inputs(case.grid, heads=HEADS, head_dim=HEAD_DIM, grad=True)
    candidates = {
        "dense": peers.dense(data, case.pattern, grad=True),
        "windeye": peers.windeye(data, case.pattern, grad=True),
    }
    timings = compare(candidates, baseline="dense", rounds=rounds)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "over_dense": timings["windeye"].speedup,
    }


def _bfloat16(case: Case, rounds: int) -> dict[str, Any]:
    single = peers.inputs(case.grid, heads=HEADS, head_dim=HEAD_DIM)
    half = peers.inputs(case.grid, heads=HEADS, head_dim=HEAD_DIM, dtype=torch.bfloat16)
    candidates = {
        "float32": peers.windeye(single, case.pattern),
        "bfloat16": peers.windeye(half, case.pattern),
        "dense bfloat16": peers.dense(half, case.pattern),
    }
    with torch.no_grad():
        timings = compare(candidates, baseline="float32", rounds=rounds)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "over_float32": timings["bfloat16"].speedup,
        "over_dense": timings["dense bfloat16"].seconds / timings["bfloat16"].seconds,
    }


def _scaling(rounds: int) -> dict[str, Any]:
    """Whether sixteen times the tokens cost sixteen times the time."""
    pattern = Neighborhood(13)
    small, large = (peers.inputs(grid, heads=HEADS, head_dim=HEAD_DIM) for grid in ((64, 64), (256, 256)))
    few, many = peers.windeye(small, pattern), peers.windeye(large, pattern)

    def sixteen() -> None:
        for _ in range(16):
            few()

    with torch.no_grad():
        timings = compare({"16 x 64x64": sixteen, "256x256": many}, baseline="16 x 64x64", rounds=rounds)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "ratio": 1 / timings["256x256"].speedup,
    }


_MEASURED = """
import torch, windeye
side = {side}
def inputs(n):
    return [torch.randn(1, n, n, {heads}, {head_dim}, requires_grad={grad}) for _ in range(3)]
pattern = windeye.Neighborhood(13)
def attend(tensors):
    out = windeye.attend(*tensors, pattern)
    return (out, *torch.autograd.grad(out, tensors, torch.ones(()).expand(out.shape))) if {grad} else out
attend(inputs(16))
tensors = inputs(side)
pattern.bind((side, side))
def run():
    return attend(tensors)
"""


def _memory() -> dict[str, Any] | None:
    """Peak memory beyond inputs and outputs, in a fresh process; None where the system does not tell."""
    if not can_measure_memory():
        return None
    gc.collect()
    measured = {}
    for label, grad in (("forward", False), ("forward + backward", True)):
        for side in (128, 256):
            code = _MEASURED.format(side=side, heads=HEADS, head_dim=HEAD_DIM, grad=grad)
            extra = statistics.median(peak_extra_bytes(code) for _ in range(3))
            measured[f"{label}, {side * side} tokens"] = extra / 2**20
    return {"mebibytes": measured, "dense_weights_mebibytes": 256**4 * HEADS * 4 / 2**20}


def _ranking(rounds: int) -> dict[str, Any]:
    """Predicted against measured speed over dense: the tile simulator with the kernel's lane boxes as query tiles."""
    from scipy.stats import spearmanr

    grid = (64, 64)
    data = peers.inputs(grid, heads=HEADS, head_dim=HEAD_DIM)
    patterns = {words: parse(words) for words in RANKED}
    candidates = {words: peers.windeye(data, pattern) for words, pattern in patterns.items()}
    with torch.no_grad():
        timings = compare({"dense": peers.dense(data, Full()), **candidates}, baseline="dense", rounds=rounds)
    settings = []
    for words, pattern in patterns.items():
        predicted, counted = _predicted(pattern, grid)
        settings.append(
            {
                "pattern": words,
                "measured": timings[words].speedup,
                "simulated": predicted,
                "counted": counted,
                "flop_bound": 1 / pattern.bind(grid).density(),
            }
        )
    measured = [setting["measured"] for setting in settings]
    return {
        "settings": settings,
        "spearman": float(spearmanr([s["simulated"] for s in settings], measured).statistic),
        "spearman_counted": float(spearmanr([s["counted"] for s in settings], measured).statistic),
        "spearman_flops": float(spearmanr([s["flop_bound"] for s in settings], measured).statistic),
    }


def _predicted(pattern: Pattern, grid: tuple[int, ...]) -> tuple[float, float]:
    """Speed-up over dense as simulated with one vector's lanes by single keys, and as the planner counts it."""
    work = lanes.plan(pattern.bind(grid), 16).forward
    # A vector's lanes stand in one residue class, and the simulator counts tiles within classes too.
    box = tuple(work.box[lanes.AXES - len(grid) :])
    simulated = simulate(pattern, grid, box, 1, mode="dynamic", reduce="mean")
    return simulated.op_speedup, prod(grid) ** 2 / work.visited_pairs


__all__ = ["CASES", "COLUMNS", "Case", "Goal", "parts", "rows"]
