"""Parameters in groups for an optimizer: by depth, by decay, by what modules say of them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn


class Layered(Protocol):
    """A model that knows how deep its parameters lie."""

    def layer_of(self, name: str) -> int: ...


def parameter_groups(
    model: nn.Module, layered: Layered, rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups of equal depth, decay and factor, the shallowest first.

    Args:
        model: has parameters, and modules that may tell ``no_weight_decay`` and ``rate_factors``.
        layered: the same model, for depths; ``head`` is the deepest.
        rate: of the head. It shrinks by ``layer_decay`` per layer away from it.
        weight_decay: of parameters with two or more axes.
    """
    kept = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    factors = {
        f"{path}.{name}": factor
        for path, module in model.named_modules()
        if hasattr(module, "rate_factors")
        for name, factor in module.rate_factors().items()
    }
    last = layered.layer_of("head")
    groups: dict[tuple[int, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim >= 2 and name not in kept
            groups.setdefault((layered.layer_of(name), decayed, factors.get(name, 1.0)), []).append(parameter)
    return [
        {
            "params": groups[layer, decayed, factor],
            "lr": rate * factor * layer_decay ** (last - layer),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for layer, decayed, factor in sorted(groups)
    ]
