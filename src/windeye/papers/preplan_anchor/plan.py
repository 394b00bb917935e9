"""How much is trained, measured and read."""

from __future__ import annotations

from dataclasses import dataclass, field

from windeye.data.tasks.plan_then_fill import PlanThenFill
from windeye.papers.experiment import Budget


@dataclass(frozen=True)
class ToyPlan:
    """Training of the model on plan-then-fill text, and what is measured on it."""

    task: PlanThenFill = field(default_factory=PlanThenFill)
    layers: int = 2
    dim: int = 64
    heads: int = 4
    glu_dim: int = 128
    rotary_base: float = 100.0
    init_std: float = 0.05
    steps: int = 600
    batch_size: int = 32
    rate: float = 4e-3
    weight_decay: float = 0.01
    lists: float = 0.25
    """Share of the steps, the first ones, that train on lists of pairs alone."""
    every: int = 25
    enough: float = 0.995
    """Accuracy at chunk starts and inside chunks at which training ends."""
    half: float = 0.95
    """Both accuracies, from which on the model is the policy that the reinforcement part begins with."""
    texts: int = 256
    window: int = 10
    low: int = 10
    high: int = 100


@dataclass(frozen=True)
class PolicyPlan:
    """Group-relative policy optimisation of the half-trained model."""

    steps: int = 40
    prompts: int = 8
    samples: int = 8
    minibatches: int = 2
    shown: int = 1
    """Chunks of the prompt, after all definitions."""
    written: int = 3
    """Chunks that the policy writes."""
    rate: float = 3e-4
    clip: float = 0.2
    low: int = 10
    high: int = 50


@dataclass(frozen=True)
class TextPlan:
    """Real text read by a real model."""

    model: str = "smollm2-135m-instruct"
    texts: int = 24
    tokens: int = 384
    prompt: int = 32
    shifts: int = 1000
    """Random rotations that say what chance gives."""


@dataclass(frozen=True)
class Plan:
    toy: ToyPlan = field(default_factory=ToyPlan)
    policy: PolicyPlan = field(default_factory=PolicyPlan)
    text: TextPlan | None = field(default_factory=TextPlan)
    """None leaves the real model out."""


PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        ToyPlan(
            PlanThenFill(keys=4, definitions=2, chunks=2), layers=1, dim=16, heads=4, glu_dim=16, steps=4, batch_size=4,
            every=2, texts=4, low=2, high=20,
        ),
        PolicyPlan(steps=2, prompts=2, samples=2, shown=1, written=1, low=2, high=8),
        None,
    ),
    "default": Plan(),
    "full": Plan(ToyPlan(steps=1500, enough=1.0, texts=512), PolicyPlan(steps=300, prompts=16), TextPlan(texts=64)),
}  # fmt: skip
