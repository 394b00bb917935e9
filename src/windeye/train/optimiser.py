"""How weights move: AdamW with and without decay, and a rate that warms up and falls like a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn


class Optimiser(Protocol):
    """A frozen dataclass that says how weights move, such as `AdamW`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def clip(self) -> float | None:
        """Largest norm of all gradients together."""
        ...

    def of(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's trainable parameters."""
        ...


@dataclass(frozen=True)
class AdamW:
    """AdamW with clipped gradients.

    Args:
        rate: peak learning rate.
        betas: decay of the running means of the gradient and its square.
        eps: added to the root of the second mean.
        weight_decay: of weights with two or more axes, embeddings included. Biases, gains of norms and other vectors
            are not decayed, nor are parameters with a true attribute ``_no_weight_decay`` or whose names a module's
            ``no_weight_decay()`` gives.
        clip: largest norm of all gradients together; None never clips.

    Raises:
        ValueError: naming the argument and what would be valid.
    """

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("eps", self.eps), ("clip", self.clip)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")

    def of(self, model: nn.Module) -> torch.optim.AdamW:
        """The optimiser of a model's trainable parameters.

        Raises:
            ValueError: the model has none.

        Example:
            >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
            >>> [(len(g["params"]), g["weight_decay"]) for g in AdamW().of(model).param_groups]
            [(1, 0.1), (3, 0.0)]
        """
        return torch.optim.AdamW(self.groups(model), lr=self.rate, betas=self.betas, eps=self.eps)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters with and without weight decay; a parameter that is used in two places counts once."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ValueError("model has no parameter that requires a gradient")
        spared = {id(p) for p in trained if getattr(p, "_no_weight_decay", False)}
        for module in model.modules():
            told: Callable[[], set[str]] | None = getattr(module, "no_weight_decay", None)
            if told is not None:
                spared |= {id(module.get_parameter(name)) for name in told()}
        decayed = [p for p in trained if p.ndim >= 2 and id(p) not in spared]
        kept = {id(p) for p in decayed}
        return [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": [p for p in trained if id(p) not in kept], "weight_decay": 0.0},
        ]


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to a share of the peak.

    Args:
        warm_up: steps until the peak; the first step already moves.
        final: share of the peak at the last step.

    Example:
        >>> [round(Cosine(warm_up=2, final=0.1).share(step, 6), 2) for step in range(6)]
        [0.5, 1.0, 0.87, 0.55, 0.23, 0.1]
    """

    warm_up: int = 0
    final: float = 0.1

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be at least 0 steps, got {self.warm_up}")
        if not 0 <= self.final <= 1:
            raise ValueError(f"final must be a share in [0, 1], got {self.final}")

    def share(self, step: int, steps: int) -> float:
        """Share of the peak rate at a step, 0 the first and ``steps - 1`` the last."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        first = max(self.warm_up - 1, 0)
        done = (step - first) / max(steps - 1 - first, 1)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
