"""Sizes of boxes and layouts of programs: what is taken unmeasured, and the few that are worth a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
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
VISIT = 24
"""What a visit costs beside its pairs, in tokens of either side: outputs are scaled and addresses made for every box,
and rows are fetched that others share. Read off compiled code."""
ROWS, FEWEST_ROWS, TWICE = 16, 64, 1.5
"""Rows that a warp multiplies on Hopper's tensor cores, from how many on; with more warps than rows, warps do the same
logits, which costs about so much. Fewer rows go to the older tensor cores."""
VECTOR = 16
"""Bytes that a thread fetches at once."""
SMALLEST_WIDTH = 16
"""Of a matrix product on tensor cores."""


@dataclass(frozen=True)
class Sizes:
    """Queries and keys per box, how a program is laid out, which of the shapes of such boxes, by what they meet, and
    whether boxes are fetched as tiles by a descriptor of their tensor."""

    queries: int
    keys: int
    warps: int
    stages: int
    shape: int = 0
    tiles: bool = False


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
"""What is tried; boxes of keys that collect gradients are as large as those of queries here."""


def first(problem: Problem, kernel: Kernel) -> Sizes:
    """What is taken unmeasured: of the layouts that fit, the one that costs least."""
    return _first(problem, kernel, shared_memory(problem.device))


@lru_cache(maxsize=256)
def _first(problem: Problem, kernel: Kernel, room: int) -> Sizes:
    layouts = _layouts(problem, kernel, room)
    pairs = problem.bound.pairs()
    best, least = layouts[0], cost(problem, kernel, layouts[0])
    for layout in layouts[1:]:
        # To plan many small boxes takes long, and no layout visits less than all pairs.
        if pairs * _dearness(kernel, layout) < least and (other := cost(problem, kernel, layout)) < least:
            best, least = layout, other
    return best


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
    best, layouts = first(problem, kernel), _layouts(problem, kernel, shared_memory(problem.device))
    tiled = [replace(best, tiles=True)] if kernel != "grad_bias" and has_descriptors(problem) else []
    options = [replace(layout, shape=shape) for shape in range(2) for layout in layouts[:MOST_CANDIDATES]]
    visited = {option: _visited(problem, option) for option in options}
    least = min(visited.values())
    worth = [option for option in options if option != best and visited[option] <= MOST_WASTE * least]
    worth = sorted(worth, key=lambda option: cost(problem, kernel, option))
    return [best, *tiled, *worth][:MOST_CANDIDATES]


def has_descriptors(problem: Problem) -> bool:
    """Whether the device fetches tiles by descriptors, Hopper and later, of half types: others spill already."""
    device = problem.device
    return device.type == "cuda" and problem.dtype.itemsize == 2 and torch.cuda.get_device_capability(device) >= (9, 0)


def cost(problem: Problem, kernel: Kernel, chosen: Sizes) -> float:
    """What a kernel is reckoned to take, up to a factor."""
    return _visited(problem, chosen) * _dearness(kernel, chosen)


def _dearness(kernel: Kernel, chosen: Sizes) -> float:
    """What a visited pair costs: more in small boxes, and where warps do the same products."""
    own, _ = _sides(kernel, chosen)
    twice = FEWEST_ROWS <= own < ROWS * chosen.warps
    return (1 + VISIT / chosen.queries) * (1 + VISIT / chosen.keys) * (TWICE if twice else 1.0)


def _sides(kernel: Kernel, chosen: Sizes) -> tuple[int, int]:
    """Tokens of the boxes that programs own, and of those that pass."""
    both = chosen.queries, chosen.keys
    return both[::-1] if kernel == "grad_key_value" else both


def _visited(problem: Problem, chosen: Sizes) -> int:
    return plan(problem.bound, chosen.queries, chosen.keys, chosen.shape).visited * chosen.queries * chosen.keys


def _layouts(problem: Problem, kernel: Kernel, room: int) -> list[Sizes]:
    """Those that fit, what makes pairs cheap first; the smallest is there always."""
    options = FORWARD if kernel == "attention" else BACKWARD
    options = tuple(Sizes(*_sides(kernel, option), option.warps, option.stages) for option in options)
    fitting = [
        option for option in options
        if _registers(problem, kernel, option) <= MOST_REGISTERS and _shared(problem, kernel, option) <= room
    ]  # fmt: skip
    return sorted(fitting or [options[-1]], key=lambda option: _dearness(kernel, option))


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
    """Of a thread, for what a program sums up, for tiles of pairs, and for the addresses of rows that are fetched.
    Products of float32 keep their factors in two parts each; what they take was read off the compiler."""
    row, both = width(problem.head_dim), width(problem.head_dim) + width(problem.value_dim)
    queries, keys, threads = chosen.queries, chosen.keys, 32 * chosen.warps
    own, passing = _sides(kernel, chosen)
    sums, fetched = {
        "attention": (queries * (both - row), passing),
        "grad_query": (queries * row, passing),
        "grad_key_value": (keys * both, passing),
        "grad_bias": (queries * keys, own + passing),
    }[kernel]
    sharing = 32 * min(chosen.warps, own // ROWS) if own >= FEWEST_ROWS else threads
    tiles = 1.5 if kernel == "attention" else 2
    held = sums // threads + int(tiles * queries * keys) // sharing
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
