"""What each budget of the experiment takes."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.papers.experiment import Budget


@dataclass(frozen=True)
class Plan:
    """Training: ``steps`` of ``batch`` windows of ``window`` bytes.

    Speed: ``lengths`` that double, up to ``longest`` for the parallel form, whose matrices of all pairs must fit, and
    for softmax attention, whose passes take long; ``rounds`` rounds, fewer if forms take more than ``most_seconds``.
    Memory: passes over ``measured`` tokens, and streams of as many tokens in pieces of ``piece``.
    """

    steps: int
    batch: int
    window: int
    lengths: tuple[int, ...]
    longest: dict[str, int]
    rounds: int
    most_seconds: float
    measured: tuple[int, int]
    streams: tuple[int, int]
    piece: int


PARALLEL, SDPA = "parallel form", "causal SDPA"
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEST = {PARALLEL: 4096, SDPA: 16384}
STREAMS = (1 << 16, 1 << 20)
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(3, 2, 48, (64, 128, 256), {PARALLEL: 128, SDPA: 256}, 1, 1, (512, 1024), (1 << 11, 1 << 13), 1 << 10),
    "default": Plan(200, 4, 256, LENGTHS, LONGEST, 9, 6, (4096, 16384), STREAMS, 1 << 10),
    "full": Plan(2000, 16, 512, LENGTHS, {PARALLEL: 8192, SDPA: 32768}, 15, 60, (4096, 16384), STREAMS, 1 << 10),
}
