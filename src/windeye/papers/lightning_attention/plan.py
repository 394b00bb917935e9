"""What each budget of the experiment takes."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.papers.experiment import Budget


@dataclass(frozen=True)
class Plan:
    """Training: ``steps`` of ``batch`` windows of ``window`` bytes, scored on about ``held_out`` bytes.

    Speed: passes over ``tokens`` bytes, cut into sequences of each of ``lengths``, ``rounds`` times; the transformer
    leaves out lengths above ``longest_softmax``, where a pass takes minutes.
    """

    steps: int
    batch: int
    window: int
    held_out: int
    lengths: tuple[int, ...]
    longest_softmax: int
    rounds: int

    @property
    def tokens(self) -> int:
        return max(self.lengths)


LENGTHS = (512, 2048, 8192, 32768)
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(3, 2, 64, 4_000, (64, 128, 256), 256, 1),
    "default": Plan(600, 4, 256, 60_000, LENGTHS, 8192, 3),
    "full": Plan(20_000, 16, 256, 200_000, LENGTHS, 8192, 5),
}
