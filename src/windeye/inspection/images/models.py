"""A vision model by what a person calls it: a published name, official weights, a file of ours, a folder of
transformers."""

from __future__ import annotations

import difflib
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from windeye.data.images.scaling import Colours
from windeye.models.checkpoints import read_checkpoint
from windeye.models.identify import Identity, identify
from windeye.models.registry import PRESETS, create
from windeye.models.vision import HierarchicalBackbone, VisionTransformer, load_backbone
from windeye.models.vision.files import KEY

RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Found:
    """A vision model in evaluation mode."""

    model: nn.Module
    name: str
    weights: str
    """Where its weights are from; "random" where they are fresh."""
    colours: Colours | None = None
    """How its images are scaled, if the model's files say so."""


def vision_names() -> tuple[str, ...]:
    """Every published vision model that `windeye.models.create` knows.

    Example:
        >>> {"swin_t", "biformer_s", "vit_b"} <= set(vision_names()), "tnl_385m" in vision_names()
        (True, False)
    """
    kinds = (HierarchicalBackbone, VisionTransformer)
    builders = {preset.build for preset in PRESETS.values()}
    ours = {build for build in builders if typing.get_type_hints(build).get("return") in kinds}
    return tuple(sorted(name for name, preset in PRESETS.items() if preset.build in ours))


def vision_model(model: str | Path, weights: str | Path | None = None, *, resize_tables: bool = False) -> Found:
    """A vision model.

    Args:
        model: a published name; a file that `windeye.models.vision.save_backbone` wrote; a file of official weights,
            whose model is told from names and shapes; a folder of transformers, or a name of its hub that was fetched
            before.
        weights: for a published name, official weights or ours.
        resize_tables: whether tensors that are bound to the size of a window or an image may be interpolated.

    Raises:
        ValueError: no such model, or weights of another one; says which they are of if that is known.

    Example:
        >>> vision_model("swin_tt")
        Traceback (most recent call last):
        ValueError: there is no vision model 'swin_tt'; did you mean swin_t or cswin_t or swin_s? There are ...
    """
    name, path = str(model), Path(model)
    if name in vision_names():
        if weights is None:
            return Found(create(name).eval(), name, RANDOM)
        return Found(_official(name, Path(weights), resize_tables).eval(), name, Path(weights).name)
    if not path.exists():
        if name.count("/") == 1 and not name.startswith((".", "/")):
            return _of_transformers(name)
        close = difflib.get_close_matches(name, vision_names(), n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ValueError(
            f"there is no vision model {name!r}{meant} There are {', '.join(vision_names())}; a file of save_backbone, "
            "of official weights, a folder of transformers, or a name of its hub that is on this machine does as well"
        )
    if weights is not None:
        raise ValueError(f"{path} has weights of its own; --weights goes with a published name")
    if (path / "config.json").is_file():
        return _of_transformers(str(path))
    if path.suffix == ".safetensors" and _is_ours(path):
        return Found(load_backbone(path).eval(), path.stem, path.name)
    try:
        found = identify(read_checkpoint(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} is neither a file of save_backbone nor official weights: {error}") from error
    if len(found.names) > 1:
        others = " or ".join(found.names)
        raise ValueError(f"{path} fits {others}: name the one, and give the file as --weights")
    loaded = create(found.names[0], path, resize_tables=resize_tables, **found.settings)
    return Found(loaded.eval(), found.names[0], path.name)


def _official(name: str, path: Path, resize_tables: bool) -> nn.Module:
    try:
        checkpoint = read_checkpoint(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"weights {path} cannot be read: {error}") from error
    found = _identified(checkpoint)
    # Such as another number of classes.
    settings = found.settings if found is not None and name in found.names else {}
    try:
        return create(name, path, resize_tables=resize_tables, **settings)
    except (ValueError, RuntimeError) as error:
        if found is not None and name not in found.names:
            whose = f"{' or '.join(found.names)} ({found.family})"
            raise ValueError(f"{path} holds weights of {whose}, not of {name}") from error
        raise ValueError(f"{path} does not fit {name}: {_beginning(error)}") from error


def _identified(checkpoint: Any) -> Identity | None:
    try:
        return identify(checkpoint)
    except (ValueError, KeyError, IndexError):
        return None


def _of_transformers(name: str) -> Found:
    try:
        from transformers import AutoModel
        from transformers.utils import cached_file
    except ImportError as error:
        raise ValueError(f"{name} is read by transformers: pip install 'windeye[hf]'") from error
    try:
        model = AutoModel.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"no model of transformers can be read from {name}: {_beginning(error)}") from error
    colours = None
    file = cached_file(
        name, "preprocessor_config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False
    )
    if file is not None:
        told = json.loads(Path(file).read_text())
        if told.get("do_normalize", True) and "image_mean" in told:
            colours = tuple(told["image_mean"]), tuple(told["image_std"])
    called = Path(name).resolve().name if Path(name).exists() else name
    return Found(model.eval(), called, called, colours)


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as content:
            return KEY in (content.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _beginning(error: Exception, most: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[:most] + " ..."
