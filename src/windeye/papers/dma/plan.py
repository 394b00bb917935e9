"""How much is trained, on what, and how many keys are kept."""

from __future__ import annotations

from dataclasses import dataclass

from windeye.compare.sequence import RecallPlan
from windeye.data.tasks import MQAR
from windeye.papers.experiment import Budget

RATES = (3e-3, 1e-2)


@dataclass(frozen=True)
class Plan:
    """The recall task of every arm, and the keys that all but full attention see."""

    recall: RecallPlan
    keep: int


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        RecallPlan(MQAR(32, 16, 2, 1.0, "zero"), dim=16, steps=4, batch_size=4, rates=RATES, held_out=8, every=2), 4
    ),
    # In full: what the comparison takes by default may change, and this was fixed before its run.
    "default": Plan(
        RecallPlan(
            MQAR(256, 128, 8, 1.0, "zero"), dim=64, init_std=0.1, steps=1200, batch_size=32, rates=RATES, held_out=256,
            every=100, enough=0.99,
        ),
        32,
    ),
    "full": Plan(
        RecallPlan(MQAR(1024, 512, 32, 1.0, "zero"), dim=128, steps=5000, batch_size=64, rates=RATES, held_out=1024),
        128,
    ),
}  # fmt: skip
