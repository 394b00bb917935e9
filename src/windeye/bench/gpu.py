"""The GPU suite: windows of video, image and text models on CUDA, against every kernel that is at hand there, and
statistics of their maps against the forward pass."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.table import ratio
from windeye.kernels.softmax import flex, natten
from windeye.kernels.softmax.problem import problem_of
from windeye.ops import ColumnSum, Entropy, MaxWeight, MeanDistance, SinkMass, Statistic, attend, statistics
from windeye.patterns import Full, Neighborhood, Pattern, Sliding
from windeye.tiling import simulate

OURS, TUNED, DENSE, FLASH, CUDNN, FLEX, ORDERED, NATTEN = (
    "windeye", "windeye, tuned", "dense", "dense, flash", "dense, cuDNN", "FlexAttention",
    "FlexAttention in tile order", "NATTEN",
)  # fmt: skip
ROWS, COLUMN_SUMS, GRADIENTS = "row statistics", "column sums", "row statistics and their gradients"
STATISTICS: dict[str, dict[str, Statistic]] = {
    ROWS: {"entropy": Entropy(), "distance": MeanDistance(), "largest": MaxWeight(), "sink": SinkMass(1)},
    COLUMN_SUMS: {"received": ColumnSum()},
}
"""Of one map; column sums take the normalisers of a row pass first."""
DIFFERENTIABLE: dict[str, Statistic] = {"entropy": Entropy(), "distance": MeanDistance()}
PERMUTED = "putting tokens into tile order and back"
COLUMNS = (
    "tokens, window", "windeye, ms", "tuned, ms", "minimum, aim, ms", "TFLOP/s", "over dense", "bound", "over Flex",
    "over Flex in order", "over NATTEN", "backward / forward", "row statistics / forward", "column sums / forward",
)  # fmt: skip
ROUNDS, FEWEST, SECONDS = 15, 3, 0.7
"""Of a candidate: so many rounds, or fewer where they take longer than that, but no fewer than a few."""
SHORT, CALLS = 1.0, 20
"""Milliseconds below which a forward pass is timed in a CUDA graph of so many: Python takes longer to ask for it than
the device to do it."""
GOALS = {
    "256x256, kernel 80, stride 1": (24.0, 16.0),
    "256x256, kernel 80, stride 16x16": (14.0, 9.0),
    "30x48x80, kernel 18x24x24, stride 1": (110.0, 80.0),
    "30x48x80, kernel 18x24x24, stride 16x8x8": (38.0, 27.0),
    "32768, causal window 2048": (0.12, 0.08),
}
"""Milliseconds of a forward pass: what we hold ourselves to, and what we want."""


@dataclass(frozen=True)
class Case:
    """One layer of a model: forward, and backward where ``training``."""

    name: str
    grid: tuple[int, ...]
    heads: int
    head_dim: int
    pattern: Pattern
    tile: tuple[int, ...]
    """Of queries, for the tile order of FlexAttention and for the simulated bound; 128 tokens."""


def _strided(
    name: str, grid: tuple[int, ...], heads: int, window: Any, tile: tuple[int, ...], *strides: Any
) -> list[Case]:
    return [
        Case(f"{name}, stride {'x'.join(map(str, s)) if isinstance(s, tuple) else s}", grid, heads, 128,
             Neighborhood(window, stride=s), tile)
        for s in strides
    ]  # fmt: skip


CASES = (
    *_strided("256x256, kernel 80", (256, 256), 24, 80, (8, 16), 1, (16, 1), (16, 16)),
    *_strided("30x48x80, kernel 18x24x24", (30, 48, 80), 24, (18, 24, 24), (2, 8, 8), 1, (1, 1, 8), (16, 8, 8)),
    *_strided("16x44x80, kernel 16x24x16", (16, 44, 80), 32, (16, 24, 16), (4, 4, 8), 1, (1, 8, 1), (1, 8, 16)),
    Case("32768, causal window 2048", (32768,), 1, 128, Sliding(2048), (128,)),
    Case("16384, everything", (16384,), 16, 128, Full(), (128,)),
)
SMALL = (Case("8x12, kernel 5", (8, 12), 2, 16, Neighborhood(5), (8, 8)),)


def parts(*, quick: bool = False, device: str = "cuda") -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts; ``quick`` measures a small case: to see it works.

    Raises:
        ValueError: there is no CUDA device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the suite gpu needs a CUDA device, and torch sees none")
    yield "device", partial(about, device)
    for case in SMALL if quick else CASES:
        yield case.name, partial(measure, case, device, 3 if quick else ROUNDS)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case; a dash where a peer could not run."""
    table: list[tuple[str, ...]] = []
    for name, part in result["parts"].items():
        if name == "device":
            continue
        ms = part["forward_ms"]
        ours = ms[OURS]
        dense = min((ms[n] for n in (DENSE, FLASH, CUDNN) if n in ms), default=None)

        def over(peer: float | None, ours: float = ours) -> str:
            return "-" if peer is None else ratio(peer / ours)

        both, numbers = part["training_ms"].get(OURS), part["statistics_ms"]
        table.append((
            name, f"{ours:.3g}", f"{ms[TUNED]:.3g}" if TUNED in ms else "-",
            "{:g}, {:g}".format(*GOALS[name]) if name in GOALS else "",
            f"{part['flops'] / ours / 1e9:.0f}", over(dense), ratio(part["flop_bound"]),
            over(ms.get(FLEX)), over(ms.get(ORDERED)), over(ms.get(NATTEN)),
            "-" if both is None else ratio((both - ours) / ours),
            *("-" if name not in numbers else ratio(numbers[name] / ours) for name in STATISTICS),
        ))  # fmt: skip
    return table


def about(device: str) -> dict[str, Any]:
    """The device, its clocks and the kernels that are there."""
    facts: dict[str, Any] = {"natten": natten._installed()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {"name": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
        asked = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.limit", "--format=csv"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        facts["clocks"] = done.stdout.strip().splitlines()
    return facts


def measure(case: Case, device: str, rounds: int) -> dict[str, Any]:
    """Medians of all candidates in turn, forward and forward + backward; what cannot run says why."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    data = _inputs(case, device, dtype)
    bound = case.pattern.bind(case.grid)
    refused: dict[str, str] = {}
    forward = candidates(case, data, refused)
    if device == "cuda":
        forward[TUNED] = _tuned(forward[OURS])
    leaves = [t.detach().clone().requires_grad_() for t in data]
    training = {name: _with_backward(run, leaves) for name, run in candidates(case, leaves, {}).items()}
    if case.name not in GOALS:
        for name in (FLEX, ORDERED):  # it compiles for longer than everything else takes together
            training.pop(name, None)
    simulated = simulate(case.pattern, case.grid, case.tile, case.tile, mode="static")
    return {
        "flops": bound.flops(case.heads, case.head_dim),
        "flop_bound": 1 / bound.density(),
        "simulated": simulated.op_speedup,
        "bytes": 4 * prod(case.grid) * case.heads * case.head_dim * dtype.itemsize,
        "dtype": str(dtype).removeprefix("torch."),
        "forward_ms": times(forward, device, rounds, refused, graphs=device == "cuda"),
        "training_ms": times(training, device, rounds, {}),
        "statistics_ms": times(numbers(case, data, leaves), device, rounds, refused),
        "refused": refused,
    }


def candidates(case: Case, data: list[Tensor], refused: dict[str, str]) -> dict[str, Callable[[], Tensor]]:
    """All that compute the case, each in the layout it likes; permutations are made outside of the dense kernels."""
    query, key, value = data
    first = [t.flatten(1, -3).transpose(1, 2).contiguous() for t in data]
    q, k, v = first
    runs: dict[str, Callable[[], Tensor]] = {OURS: lambda: attend(query, key, value, case.pattern, backend="triton")}
    causal = isinstance(case.pattern, Sliding)
    if query.device.type == "cuda":
        from torch.nn.attention import SDPBackend, sdpa_kernel

        def dense(backend: SDPBackend) -> Callable[[], Tensor]:
            def run() -> Tensor:
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

            return run

        runs |= {FLASH: dense(SDPBackend.FLASH_ATTENTION), CUDNN: dense(SDPBackend.CUDNN_ATTENTION)}
    else:
        runs[DENSE] = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    problem = problem_of(case.pattern, query, key, value, scale=1.0, needs_grad=query.requires_grad, needs_lse=False)
    for name, backend in ((FLEX, flex), (NATTEN, natten)):
        if reason := backend.can_run(problem):
            refused[name] = reason
        else:
            runs[name] = partial(attend, query, key, value, case.pattern, backend=backend.name)
    if FLEX in runs and query.device.type == "cuda":
        order = tile_order(case.grid, case.tile).to(query.device)
        runs[ORDERED] = flex_in_order(case, first, order)
        back = order.argsort()
        runs[PERMUTED] = lambda: first[0][:, :, order][:, :, back]
    return runs


def numbers(case: Case, data: list[Tensor], leaves: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Statistics of the case's map, and gradients of some of them."""

    def of(stats: dict[str, Statistic]) -> Callable[[], Tensor]:
        return lambda: next(iter(statistics(data[0], data[1], stats, case.pattern, route="triton").values()))

    def gradients() -> Tensor:
        values = statistics(leaves[0], leaves[1], DIFFERENTIABLE, case.pattern, route="triton")
        loss = torch.stack(list(values.values())).sum()
        return torch.autograd.grad(loss, leaves[:2])[0]

    return {name: of(stats) for name, stats in STATISTICS.items()} | {GRADIENTS: gradients}


def flex_in_order(case: Case, first: list[Tensor], order: Tensor) -> Callable[[], Tensor]:
    """FlexAttention on tokens in tile order, the permutation of all four tensors included."""
    bound, device = case.pattern.bind(case.grid), first[0].device
    original = bound.mask_mod(device)

    def seen(batch: Any, head: Any, query: Any, key: Any) -> Tensor:
        return original(batch, head, order[query], order[key])

    mask = flex.block_mask_of(seen, bound.tokens, bound.tokens_kv, device)
    run, back = flex._compiled(), order.argsort()

    def ordered() -> Tensor:
        q, k, v = (t[:, :, order] for t in first)
        out: Tensor = run(q, k, v, block_mask=mask)
        return out[:, :, back]

    return ordered


def tile_order(grid: tuple[int, ...], tile: tuple[int, ...]) -> Tensor:
    """Row-major token numbers, tile by tile.

    Example:
        >>> tile_order((2, 4), (2, 2)).tolist()
        [0, 1, 4, 5, 2, 3, 6, 7]
    """
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    number = torch.zeros(grid, dtype=torch.long)
    for axis, size in zip(axes, tile, strict=True):
        number = number * (int(axis.max()) // size + 1) + axis // size
    within = torch.zeros(grid, dtype=torch.long)
    for axis, size in zip(axes, tile, strict=True):
        within = within * size + axis % size
    return (number * prod(tile) + within).flatten().argsort()


def times(
    runs: dict[str, Callable[[], Tensor]],
    device: str,
    rounds: int,
    refused: dict[str, str],
    *,
    graphs: bool = False,
) -> dict[str, float]:
    """Medians in milliseconds; candidates take turns. One that fails is left out, with the reason."""
    found: dict[str, list[float]] = {}
    timed: dict[str, tuple[Callable[[], Any], int]] = {}
    for name, run in runs.items():
        try:
            run()  # compiles
            short = _milliseconds(run, device) < SHORT
            timed[name] = (_graph(run), CALLS) if graphs and short else (run, 1)
            found[name] = []
        except (RuntimeError, ValueError, NotImplementedError) as error:
            refused[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    for turn in range(rounds):
        for name, measured in found.items():
            if turn < FEWEST or sum(measured) < 1e3 * SECONDS:
                call, calls = timed[name]
                measured.append(_milliseconds(call, device) / calls)
    return {name: median(each) for name, each in found.items()}


def _graph(run: Callable[[], Tensor]) -> Callable[[], None]:
    """Several calls as one CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            run()
    graph.replay()
    replay: Callable[[], None] = graph.replay
    return replay


def _milliseconds(run: Callable[[], Any], device: str) -> float:
    if device != "cuda":
        from time import perf_counter

        begin = perf_counter()
        run()
        return 1e3 * (perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def _tuned(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """With the sizes of boxes that are measured best; the first call measures them."""

    def tuned() -> Tensor:
        with patch.dict(os.environ, {"WINDEYE_AUTOTUNE": "1"}):
            return run()

    return tuned


def _with_backward(run: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], Tensor]:
    def both() -> Tensor:
        out = run()
        torch.autograd.grad(out, leaves, out.detach(), allow_unused=True)
        return out

    return both


def _inputs(case: Case, device: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (1, *case.grid, case.heads, case.head_dim)
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
