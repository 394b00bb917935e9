"""A vision backbone by what a person calls it: a published name, official weights, or a file of ours."""

from __future__ import annotations

import difflib
import typing
from pathlib import Path
from typing import Any

from safetensors import safe_open

from windeye.models.checkpoints import read_checkpoint
from windeye.models.identify import Identity, identify
from windeye.models.registry import PRESETS, create
from windeye.models.vision import HierarchicalBackbone, load_backbone
from windeye.models.vision.files import KEY

RANDOM = "random"


def backbone_names() -> tuple[str, ...]:
    """Every published backbone that `windeye.models.create` knows.

    Example:
        >>> {"swin_t", "biformer_s"} <= set(backbone_names()), "tnl_385m" in backbone_names()
        (True, False)
    """
    builders = {preset.build for preset in PRESETS.values()}
    ours = {build for build in builders if typing.get_type_hints(build).get("return") is HierarchicalBackbone}
    return tuple(sorted(name for name, preset in PRESETS.items() if preset.build in ours))


def backbone(
    model: str | Path, weights: str | Path | None = None, *, resize_tables: bool = False, **config: Any
) -> tuple[HierarchicalBackbone, str, str]:
    """A backbone in evaluation mode, what it is called, and where its weights are from ("random" where they are fresh).

    Args:
        model: a published name; a file that `windeye.models.vision.save_backbone` wrote; or a file of official weights,
            whose model is told from names and shapes.
        weights: for a published name, official weights or ours.
        resize_tables: whether tensors that are bound to the size of a window may be interpolated.
        config: settings of the family's builder.

    Raises:
        ValueError: no such model, or weights of another one; says which they are of if that is known.

    Example:
        >>> backbone("swin_tt")
        Traceback (most recent call last):
        ValueError: there is no vision model 'swin_tt'; did you mean swin_t or cswin_t or swin_s? There are ...
    """
    name = str(model)
    if name in backbone_names():
        if weights is None:
            return _evaluated(create(name, **config)), name, RANDOM
        return _evaluated(_loaded(name, Path(weights), resize_tables, config)), name, Path(weights).name
    path = Path(model)
    if not path.exists():
        close = difflib.get_close_matches(name, backbone_names(), n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ValueError(
            f"there is no vision model {name!r}{meant} There are {', '.join(backbone_names())}; a file that "
            "save_backbone wrote does as well"
        )
    if weights is not None:
        raise ValueError(f"{path} is a file with weights of its own; --weights goes with a published name")
    if path.suffix == ".safetensors" and path.is_file() and _is_ours(path):
        return _evaluated(load_backbone(path)), path.stem, path.name
    try:
        found = identify(read_checkpoint(path))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{path} is neither a file of save_backbone nor official weights: {error}") from error
    loaded = create(found.names[0], path, resize_tables=resize_tables, **found.settings | config)
    return _evaluated(loaded), found.names[0], path.name


def _loaded(name: str, path: Path, resize_tables: bool, config: dict[str, Any]) -> Any:
    try:
        checkpoint = read_checkpoint(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"weights {path} cannot be read: {error}") from error
    found = _identified(checkpoint)
    if found is not None and name in found.names:  # such as another number of classes
        config = found.settings | config
    try:
        return create(name, path, resize_tables=resize_tables, **config)
    except (ValueError, RuntimeError) as error:
        if found is not None and name not in found.names:
            raise ValueError(
                f"{path} holds weights of {' or '.join(found.names)} ({found.family}), not of {name}"
            ) from error
        raise ValueError(f"{path} does not fit {name}: {_beginning(error)}") from error


def _identified(checkpoint: Any) -> Identity | None:
    try:
        return identify(checkpoint)
    except (ValueError, KeyError, IndexError):
        return None


def _evaluated(model: Any) -> HierarchicalBackbone:
    assert isinstance(model, HierarchicalBackbone)
    return model.eval()


def _is_ours(path: Path) -> bool:
    with safe_open(path, framework="pt") as content:
        return KEY in (content.metadata() or {})


def _beginning(error: Exception, most: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[:most] + " ..."
