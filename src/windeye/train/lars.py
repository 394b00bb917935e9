"""LARS: the step of each matrix is scaled to its own length, for large batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LARS:
    """Momentum with layer-wise rates, as probes of frozen encoders are trained: for a weight of two or more axes

    ``u = g + decay w``, ``m = momentum m + trust |w| / |u| u``, ``w = w - rate m``;

    where ``|w|`` or ``|u|`` is zero the factor is 1. Vectors and scalars go without factor and decay.

    Args:
        rate: peak learning rate; the study takes 0.1 for each 256 examples of a batch.
        momentum: what is kept of the last step.
        trust: how long a step is at a rate of 1, in lengths of the weight.
        weight_decay: of weights with two or more axes.
        clip: largest norm of all gradients together; None never clips.

    Raises:
        ValueError: naming the argument and what would be valid.

    Source: efficient-probing spec.

    Example:
        >>> LARS(rate=1.6).of(nn.Linear(2, 3)).param_groups[0]["trust"]
        0.001
    """

    rate: float = 1.6
    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("trust", self.trust), ("clip", self.clip)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")

    def of(self, model: nn.Module) -> LayerwiseOptimizer:
        """The optimiser of a model's trainable parameters.

        Raises:
            ValueError: the model has none.
        """
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ValueError("model has no parameter that requires a gradient")
        return LayerwiseOptimizer(trained, self)


class LayerwiseOptimizer(torch.optim.Optimizer):
    """The optimiser that `LARS` describes."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: LARS) -> None:
        defaults = {
            "lr": settings.rate, "momentum": settings.momentum, "trust": settings.trust,
            "weight_decay": settings.weight_decay,
        }  # fmt: skip
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: torch.Tensor, update: torch.Tensor, group: dict[str, Any]) -> None:
        if weight.ndim >= 2:
            update = update.add(weight, alpha=group["weight_decay"])
            length, reach = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)
            factor = torch.where((length > 0) & (reach > 0), group["trust"] * length / reach, 1.0)
            update = update * factor
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        momentum.mul_(group["momentum"]).add_(update)
        weight.sub_(momentum, alpha=group["lr"])
