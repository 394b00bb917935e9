"""What is trained on what: texts, sizes, and the arms with their rules and radii."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from windeye.models.attentive import Encoder
from windeye.papers.experiment import Budget

Target = Literal["nothing", "scores", "words"]


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Args:
        target: what is perturbed.
        rule: the name of a rule for scores, or "adversarial" or "directions" for words.
        radius: of the perturbation.
        dropout: share of attention weights dropped.
        weight_decay: of all parameters but those of the attention.
    """

    target: Target = "nothing"
    rule: str = ""
    radius: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 1e-5


@dataclass(frozen=True)
class Task:
    """A collection, how much of it, and the arms that are trained on it."""

    collection: str
    arms: tuple[str, ...]
    train: int
    test: int
    longest: int
    epochs: int
    encoder: Encoder = "bilstm"


@dataclass(frozen=True)
class Plan:
    """All tasks, and the sizes that they share."""

    tasks: dict[str, Task]
    dim: int = 64
    hidden: int = 48
    batch_size: int = 32
    rate: float = 3e-3
    least: int = 2
    """A word is known if the training texts have it so often."""


VANILLA, RANDOM, ADVERSARIAL = "vanilla", "Attention RP 8", "Attention AT 8"
SWEEP = (2.0, 8.0, 30.0)
"""Radii at which training on scores and on words is compared for its sensitivity."""


def at(radius: float) -> str:
    """The name of an arm."""
    return f"Attention AT {radius:g}"


def word_at(radius: float) -> str:
    """The name of an arm."""
    return f"Word AT {radius:g}"


ARMS: dict[str, Arm] = {
    VANILLA: Arm(),
    "attention dropout": Arm(dropout=0.5),
    "weight decay": Arm(weight_decay=1e-3),
    RANDOM: Arm("scores", "random", 8.0),
    **{at(radius): Arm("scores", "adversarial", radius) for radius in SWEEP},
    "Attention iAT 8, free norm": Arm("scores", "iat_norm_free", 8.0),
    "Attention iAT 8, as released": Arm("scores", "iat_batch", 8.0),
    **{word_at(radius): Arm("words", "adversarial", radius) for radius in SWEEP},
    "Word iAT 8": Arm("words", "directions", 8.0),
}
FEW = (VANILLA, RANDOM, ADVERSARIAL, word_at(8.0))

TWEETS = Task("tweets", tuple(ARMS), train=800, test=600, longest=32, epochs=8)
DOCSTRINGS = Task("docstrings", FEW, train=800, test=600, longest=32, epochs=15)
POSTS = Task("newsgroups", tuple(ARMS), train=1200, test=780, longest=500, epochs=8)

PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        {"docstrings": replace(DOCSTRINGS, arms=tuple(ARMS), train=32, test=16, longest=8, epochs=1)},
        dim=8,
        hidden=4,
        batch_size=16,
    ),
    "default": Plan({"tweets": TWEETS, "docstrings": DOCSTRINGS}),
    "full": Plan(
        {
            "tweets": replace(TWEETS, train=8000, test=4000, longest=40),
            "newsgroups": POSTS,
            "docstrings": replace(DOCSTRINGS, arms=tuple(ARMS), train=1500, test=1500, longest=40),
        },
        dim=300,
        hidden=128,
        rate=1e-3,
    ),
}
