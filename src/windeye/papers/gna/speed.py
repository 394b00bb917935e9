"""How fast strides make the CPU kernel, and how fast a count of its work says that they can."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypedDict

import torch

import windeye
from windeye.bench import peers
from windeye.bench.timing import compare
from windeye.kernels.softmax import lanes
from windeye.papers.gna.plan import Plan
from windeye.tiling import simulate

VECTOR = 16
"""Lanes of one of the kernel's vectors in float32, with every instruction set."""


@dataclass(frozen=True)
class Case:
    """A grid with a window of about a ninth of its tokens. ``tile`` is the stride T that a lane tile fits."""

    grid: tuple[int, ...]
    window: tuple[int, ...]
    tile: int
    between: tuple[int, ...]

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Stride 1, those between, T, and the window itself."""
        return (*((s,) * len(self.grid) for s in (1, *self.between, self.tile)), self.window)

    def name(self, stride: tuple[int, ...]) -> str:
        return f"{by(self.grid)} W={by(self.window)} s={by(stride)}"

    def named(self, stride: int) -> str:
        return self.name((stride,) * len(self.grid))


CASES = (Case((64, 64), (21, 21), 8, (2, 4)), Case((16, 32, 32), (8, 15, 15), 4, (2,)))


class Speeds(TypedDict):
    """Speed-ups over dense of one grid's settings by name, as measured once."""

    speedups: dict[str, float]
    seconds: float


def speeds(case: Case, plan: Plan) -> Speeds:
    """Forward speed of the kernel over torch's dense attention, which takes turns with it."""
    began = time.perf_counter()
    data = peers.inputs(case.grid, heads=plan.heads)
    candidates = {case.name(s): peers.windeye(data, windeye.Neighborhood(case.window, stride=s)) for s in case.strides}
    with torch.no_grad():
        timings = compare(
            {"dense": peers.dense(data, windeye.Full()), **candidates}, baseline="dense", rounds=plan.rounds
        )
    return Speeds(speedups={name: timings[name].speedup for name in candidates}, seconds=time.perf_counter() - began)


def simulated(case: Case, stride: tuple[int, ...]) -> float:
    """Speed-up over dense by the tile simulator: the box of one vector's queries, one key at a time, boxes averaged.

    Every box is taken as full, as the simulator takes it for dense attention too.
    """
    pattern = windeye.Neighborhood(case.window, stride=stride)
    box = lanes.plan(pattern.bind(case.grid), VECTOR).forward.box[lanes.AXES - len(case.grid) :]
    return simulate(pattern, case.grid, box, 1, mode="dynamic", reduce="mean").op_speedup


def counted(case: Case, stride: tuple[int, ...]) -> float:
    """All pairs over those that the kernel's vectors compute, idle lanes of incomplete vectors included.

    What it costs to bring rows to a tile of several vectors is left out.
    """
    bound = windeye.Neighborhood(case.window, stride=stride).bind(case.grid)
    return bound.tokens**2 / lanes.plan(bound, VECTOR).forward.visited_pairs


def by(sizes: tuple[int, ...]) -> str:
    """As grids are written, such as 16x32x32."""
    return "x".join(map(str, sizes))
