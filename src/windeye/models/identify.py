"""Which published model a file of weights is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from windeye.models.registry import PRESETS


@dataclass(frozen=True)
class Identity:
    """Models whose tensors have exactly the names and shapes of a checkpoint."""

    family: str
    names: tuple[str, ...]
    """For `windeye.models.create`; several where only what is not in the weights tells models apart."""
    settings: dict[str, Any]
    """Settings that differ from those of these names, for `create`."""


def identify(checkpoint: Mapping[str, Tensor]) -> Identity:
    """The published model that official weights are of, from their names and shapes.

    Raises:
        ValueError: no registered family has such names, or none of its sizes fits.

    Example:
        >>> from windeye.models.vision.swin import WEIGHTS
        >>> from windeye.models import create
        >>> with torch.device("meta"):
        ...     weights = WEIGHTS.shapes(create("swin_t", num_classes=10))
        >>> identify({name: torch.empty(shape, device="meta") for name, shape in weights.items()}).names
        ('swin_t',)
    """
    families = {
        id(preset.weights): preset.weights
        for preset in PRESETS.values()
        if preset.weights is not None and any(re.match(preset.weights.signature, name) for name in checkpoint)
    }
    if not families:
        raise ValueError(f"no known family has names such as {', '.join(sorted(checkpoint)[:3])}")
    for weights in families.values():
        settings = weights.settings(checkpoint) if weights.settings is not None else {}
        shapes = {n: tuple(t.shape) for n, t in checkpoint.items() if not re.fullmatch(weights.dropped, n)}
        names = []
        for name, preset in PRESETS.items():
            if preset.weights is weights:
                with torch.device("meta"):
                    model = preset.build(**preset.settings | settings)
                if weights.shapes(model) == shapes:
                    names.append(name)
        if names:
            return Identity(weights.name, tuple(names), settings)
    known = " or ".join(weights.name for weights in families.values())
    raise ValueError(f"this checkpoint has names of {known} but the sizes of no published model")
