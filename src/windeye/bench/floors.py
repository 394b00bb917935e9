"""The floors suite: what the cases of the GPU suite need at least on one H100, by counting. Nothing is run.

Work is that of the pairs that the pattern wants, and of those that our boxes visit; bytes are inputs and output, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import torch

from windeye.bench.gpu import CASES, GOALS, Case
from windeye.bench.table import ratio
from windeye.kernels.softmax.problem import problem_of
from windeye.kernels.softmax.triton.plan import plan
from windeye.kernels.softmax.triton.sizes import first

FLOPS = 989e12
"""bfloat16 products per second of an H100 (SXM) without sparsity, by its data sheet."""
BYTES = 3.35e12
"""Bytes per second of its memory."""
COLUMNS = (
    "tokens, window", "TFLOP", "ms at peak", "ms for bytes", "boxes of queries, keys", "visited / wanted",
    "unmasked boxes", "minimum, aim, ms", "the aim's share of peak",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts, which take no time worth a ``quick`` one."""
    del quick
    for case in CASES:
        yield case.name, partial(floor, case)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case."""
    table: list[tuple[str, ...]] = []
    for name, found in result["parts"].items():
        goal = GOALS.get(name)
        share = found["flops"] * found["visited"] / FLOPS / (goal[1] / 1e3) if goal else None
        boxes = ", ".join("x".join(map(str, box)) for box in found["boxes"])
        table.append(
            (
                name,
                f"{found['flops'] / 1e12:.3g}",
                f"{1e3 * found['flops'] / FLOPS:.2g}",
                f"{1e3 * found['bytes'] / BYTES:.2g}",
                boxes,
                ratio(found["visited"]),
                f"{100 * found['whole']:.0f}%",
                f"{goal[0]:g}, {goal[1]:g}" if goal else "",
                f"{100 * share:.0f}%" if share else "",
            )
        )
    return table


def floor(case: Case) -> dict[str, Any]:
    """What is wanted, and what our forward kernel would visit.

    Example:
        >>> found = floor(CASES[2])
        >>> found["flops"] == 4 * 256**2 * 80**2 * 24 * 128, found["visited"], found["whole"]
        (True, 1.0, 1.0)
    """
    bound = case.pattern.bind(case.grid)
    query = torch.empty(1, *case.grid, case.heads, case.head_dim, dtype=torch.bfloat16, device="meta")
    sizes = first(problem_of(case.pattern, query, query, query, scale=1.0), "attention")
    work = plan(bound, sizes.queries, sizes.keys, sizes.shape)
    met, whole = work.of_queries.begin, work.of_queries.middle
    rank = len(case.grid)
    return {
        "flops": bound.flops(case.heads, case.head_dim),
        "bytes": 4 * prod(case.grid) * case.heads * case.head_dim * 2,
        "boxes": [[axis.size for axis in axes[-rank:]] for axes in (work.queries, work.keys)],
        "visited": work.visited * sizes.queries * sizes.keys / bound.pairs(),
        "whole": float((whole - met[:-1]).sum() / work.visited),
    }
