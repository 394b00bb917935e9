"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from windeye.models.checkpoints import read_checkpoint
from windeye.models.weights import WeightMap


@dataclass(frozen=True)
class Preset:
    """A named model: its family's builder, the settings that make this size, and the official names of its weights."""

    build: Callable[..., nn.Module]
    weights: WeightMap | None
    settings: dict[str, Any]

    @property
    def source(self) -> Literal["published", "reimplementation"]:
        """Whether sizes and details are the published ones, or ours, because no official code is known."""
        return "reimplementation" if self.weights is not None and not self.weights.published else "published"


PRESETS: dict[str, Preset] = {}


def register(name: str, build: Callable[..., nn.Module], weights: WeightMap | None = None, **settings: Any) -> None:
    """Make a model known.

    Raises:
        ValueError: the name is taken.
    """
    if name in PRESETS:
        raise ValueError(f"model {name!r} is registered twice")
    PRESETS[name] = Preset(build, weights, settings)


def names() -> tuple[str, ...]:
    """Every model that `create` knows.

    Example:
        >>> import windeye.models
        >>> "based_360m" in names()
        True
    """
    return tuple(sorted(PRESETS))


def create(name: str, weights: str | Path | None = None, *, resize_tables: bool = False, **config: Any) -> nn.Module:
    """A model by its name.

    Args:
        name: see `names`.
        weights: a checkpoint, as a file or a folder of shards, under official names or under ours; strict. None starts
            from fresh weights.
        resize_tables: whether tensors that are bound to the size of a window or a map may be interpolated.
        config: settings of the family's builder that differ from those of this size.

    Raises:
        ValueError: an unknown name, or weights that do not fit; says which tensors.
        TypeError: a setting that the family does not have.

    Example:
        >>> import torch, windeye.models
        >>> with torch.device("meta"):
        ...     model = create("tnl_385m")
        >>> sum(p.numel() for p in model.blocks.parameters())
        333448192
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(names())}")
    preset = PRESETS[name]
    model = preset.build(**preset.settings | config)
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        ours = checkpoint.keys() == model.state_dict().keys()
        if preset.weights is None or (ours and preset.weights.published):
            model.load_state_dict(checkpoint)
        else:
            preset.weights.load(model, checkpoint, resize=resize_tables)
    return model
