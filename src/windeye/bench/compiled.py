"""The compiled suite: what the compiler makes of our Triton kernels for one H100, and how far that lets the cases of
the GPU suite come to their floors. Nothing is run, and no GPU is needed.

A multiprocessor multiplies tiles beside its four schedulers, each of which issues one instruction of a warp per cycle.
If all instructions hide behind products, a kernel takes as long as its products; if each waits for the other, as long
as both. The truth lies between, where memory and latencies do not add to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from windeye.bench.compiler import Call, Program, programs
from windeye.bench.floors import FLOPS
from windeye.bench.gpu import CASES, GOALS, SMALL, Case
from windeye.bench.table import ratio
from windeye.kernels.softmax.triton.plan import plan

PROCESSORS, SCHEDULERS, FLOPS_PER_CYCLE = 132, 4, 4096
"""Multiprocessors of an H100, what issues instructions in each, and bfloat16 operations of its tensor cores."""
PRODUCTS = {"attention": 2, "grad_query": 3, "grad_key_value": 4}
"""Of tiles, per pair of boxes."""
ALSO = ("16384, everything",)
COLUMNS = (
    "tokens, window", "kernel", "queries, keys, warps", "registers, spilled bytes", "instructions", "issue / products",
    "ms", "minimum, aim",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts; ``quick`` compiles a small case.

    Raises:
        ImportError: the package triton is not installed.
    """
    import triton  # noqa: F401

    for case in SMALL if quick else CASES:
        if quick or case.name in GOALS or case.name in ALSO:
            yield case.name, partial(compiled, case)


def compiled(case: Case) -> dict[str, Any]:
    """The kernels of a case, and what their boxes visit."""
    bound = case.pattern.bind(case.grid)
    found = programs(Call(case.pattern.spec, case.grid, head_dim=case.head_dim, value_dim=case.head_dim))
    return {
        "flops": bound.flops(case.heads, case.head_dim),
        "dim": case.head_dim,
        "kernels": {name: asdict(found[name]) | _visited(case, found[name]) for name in PRODUCTS},
    }


def _visited(case: Case, program: Program) -> dict[str, float]:
    bound = case.pattern.bind(case.grid)
    work = plan(bound, program.queries, program.keys)
    lists = work.of_keys if program.name == "grad_key_value" else work.of_queries
    return {
        "visited": work.visited * program.queries * program.keys / bound.pairs(),
        "whole": float((lists.middle - lists.begin[:-1]).sum() / work.visited),
    }


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Three rows per case: of boxes without a mask and with one, milliseconds with all issue hidden and with none."""
    table: list[tuple[str, ...]] = []
    for case, part in result["parts"].items():
        for name, kernel in part["kernels"].items():
            share = issued(kernel, part["dim"])
            products = part["flops"] / 2 * PRODUCTS[name] * kernel["visited"] / FLOPS * 1e3
            mean = kernel["whole"] * share[0] + (1 - kernel["whole"]) * share[1]
            goal = GOALS.get(case) if name == "attention" else None
            table.append((
                case, name.replace("_", " "), f"{kernel['queries']}, {kernel['keys']}, {kernel['warps']}",
                f"{kernel['registers']}, {kernel['spilled']}",
                ", ".join(str(loop["instructions"]) for loop in kernel["loops"]), ", ".join(map(ratio, share)),
                f"{products * max(1.0, mean):.2g} to {products * (1 + mean):.2g}",
                f"{goal[0]:g}, {goal[1]:g}" if goal else "",
            ))  # fmt: skip
    return table


def issued(kernel: dict[str, Any], dim: int) -> list[float]:
    """Cycles that the schedulers issue for a box, unmasked and masked, over those of its products at their peak.

    Example:
        >>> loops = [{"instructions": 512}, {"instructions": 1024}]
        >>> issued({"name": "attention", "queries": 128, "keys": 64, "warps": 8, "loops": loops}, 128)
        [1.0, 2.0]
    """
    flops = 2 * PRODUCTS[kernel["name"]] * kernel["queries"] * kernel["keys"] * dim
    return [loop["instructions"] * kernel["warps"] / SCHEDULERS / (flops / FLOPS_PER_CYCLE) for loop in kernel["loops"]]
