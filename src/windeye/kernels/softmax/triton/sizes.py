"""Sizes of boxes and layouts of programs: what is taken unmeasured, and the few that are worth a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from windeye.kernels.softmax.problem import Problem
from windeye.kernels.softmax.triton.plan import plan

Kernel = Literal["attention", "grad_query", "grad_key_value", "grad_bias"]

MOST_CANDIDATES = 6
MOST_WASTE = 1.5
"""Pairs that a candidate may visit, over those of the one that visits least."""
MOST_REGISTERS = 208
"""Of 255 that a thread may have; the others hold masks and what comes up."""
ROWS, VECTOR = 16, 16
"""Rows that a warp multiplies, and bytes that a thread fetches at once."""
SMALLEST_WIDTH = 16
"""Of a matrix product on tensor cores."""


@dataclass(frozen=True)
class Sizes:
    """Queries and keys per box, how a program is laid out, and which of the shapes of such boxes, by what they meet."""

    queries: int
    keys: int
    warps: int
    stages: int
    shape: int = 0


FORWARD: tuple[Sizes, ...] = (
    Sizes(128, 64, 8, 3), Sizes(128, 128, 8, 2), Sizes(64, 64, 4, 3), Sizes(64, 64, 4, 2), Sizes(64, 64, 8, 2),
    Sizes(64, 32, 4, 3), Sizes(64, 32, 8, 3), Sizes(64, 32, 4, 2), Sizes(64, 32, 8, 1), Sizes(32, 32, 4, 2),
    Sizes(32, 32, 4, 1), Sizes(16, 16, 4, 1),
)  # fmt: skip
BACKWARD: tuple[Sizes, ...] = (
    Sizes(128, 64, 8, 2), Sizes(64, 64, 4, 2), Sizes(64, 64, 8, 2), Sizes(64, 32, 4, 2), Sizes(32, 64, 8, 2),
    Sizes(32, 64, 4, 2), Sizes(64, 32, 8, 2), Sizes(32, 32, 4, 2), Sizes(32, 32, 8, 1), Sizes(32, 32, 4, 1),
    Sizes(32, 16, 4, 1), Sizes(16, 16, 4, 1),
)  # fmt: skip
"""What is tried, in this order; boxes of keys that collect gradients are as large as those of queries here."""


def first(problem: Problem, kernel: Kernel) -> Sizes:
    """What is taken unmeasured."""
    return _layouts(problem, kernel)[0]


def candidates(problem: Problem, kernel: Kernel) -> list[Sizes]:
    """The few that visit least, the one that is taken unmeasured first.

    Example:
        >>> import torch
        >>> from windeye.kernels.softmax.problem import problem_of
        >>> from windeye.patterns import Neighborhood
        >>> q = torch.zeros(1, 64, 64, 2, 64, dtype=torch.bfloat16, device="meta")
        >>> found = candidates(problem_of(Neighborhood(13), q, q, q, scale=1.0), "attention")
        >>> found[0].shape, len(set(found)) == len(found) <= MOST_CANDIDATES
        (0, True)
    """
    layouts = _layouts(problem, kernel)[:MOST_CANDIDATES]
    options = [replace(layout, shape=shape) for shape in range(2) for layout in layouts]
    visited = {option: _visited(problem, option) for option in options}
    least = min(visited.values())
    worth = [option for option in options[1:] if visited[option] <= MOST_WASTE * least]
    return [options[0], *sorted(worth, key=lambda option: visited[option])[: MOST_CANDIDATES - 1]]


def _visited(problem: Problem, chosen: Sizes) -> int:
    return plan(problem.bound, chosen.queries, chosen.keys, chosen.shape).visited * chosen.queries * chosen.keys


def _layouts(problem: Problem, kernel: Kernel) -> list[Sizes]:
    """Those that fit, the largest boxes first; the smallest is there always."""
    options = FORWARD if kernel == "attention" else BACKWARD
    if kernel == "grad_key_value":
        options = tuple(replace(option, queries=option.keys, keys=option.queries) for option in options)
    room = shared_memory(problem.device)
    fitting = [
        option for option in options
        if _registers(problem, kernel, option) <= MOST_REGISTERS and _shared(problem, kernel, option) <= room
    ]  # fmt: skip
    return fitting or [options[-1]]


def shared_memory(device: torch.device) -> int:
    """Bytes that a program may use on a device; those of an H100 where there is none."""
    if device.type != "cuda":
        return 227 << 10
    found = torch.cuda.get_device_properties(device)
    return int(getattr(found, "shared_memory_per_block_optin", found.shared_memory_per_block))


def width(dim: int) -> int:
    """The power of two that holds so many coordinates."""
    return max(SMALLEST_WIDTH, 1 << max(dim - 1, 0).bit_length())


def _registers(problem: Problem, kernel: Kernel, chosen: Sizes) -> int:
    """Of a thread, for what a program sums up, for two tiles of pairs, and for the addresses of rows that are fetched.
    Products of float32 keep their factors in two parts each; what they take was read off the compiler."""
    row, both = width(problem.head_dim), width(problem.head_dim) + width(problem.value_dim)
    queries, keys, threads = chosen.queries, chosen.keys, 32 * chosen.warps
    own, sums, fetched = {
        "attention": (queries, queries * (both - row), keys),
        "grad_query": (queries, queries * row, keys),
        "grad_key_value": (keys, keys * both, queries),
        "grad_bias": (queries, queries * keys, queries + keys),
    }[kernel]
    # Tensor cores of Hopper take 16 rows per warp, or warps do the same; fewer rows go to the older ones.
    sharing = 32 * min(chosen.warps, own // ROWS) if own >= 4 * ROWS else threads
    held = sums // threads + 2 * queries * keys // sharing
    vectors = fetched * both * problem.dtype.itemsize // (VECTOR * threads)
    return 3 * held + 8 * vectors if problem.dtype == torch.float32 else held + 2 * vectors


def _shared(problem: Problem, kernel: Kernel, chosen: Sizes) -> int:
    """Bytes for the rows of the box that stays and of those that are fetched ahead, for a tile of pairs between two
    products, and for entries of a bias table, which are fetched ahead, too."""
    row, both = width(problem.head_dim), width(problem.head_dim) + width(problem.value_dim)
    queries, keys, pairs = chosen.queries, chosen.keys, chosen.queries * chosen.keys
    rows = {
        "attention": queries * row + chosen.stages * keys * both,
        "grad_query": queries * both + chosen.stages * keys * both,
        "grad_key_value": keys * both + chosen.stages * queries * both,
        "grad_bias": chosen.stages * (queries + keys) * both,
    }
    entries = (chosen.stages - 1) * pairs * 4 if problem.has_bias else 0
    return (rows[kernel] + pairs) * problem.dtype.itemsize + entries
