"""Files of weights, read without running anything that is in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

WRAPPERS = ("model", "state_dict", "state_dict_ema", "model_ema")
"""Entries under which training scripts save the weights; the first that is there is taken."""
PREFIX = "module."
"""What data-parallel training puts in front of every name."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file, or of the shards in a folder: safetensors, or what torch saved.

    Only tensors and plain data are read. Objects of other kinds, such as the settings of a training script, are
    replaced by empty ones; no code of the file or of its classes runs.

    Raises:
        FileNotFoundError: nothing of that kind is there.
        ValueError: two shards hold the same name, or a file holds no weights, is damaged or of another kind.
    """
    path = Path(path)
    shards = [path]
    if path.is_dir():
        shards = sorted(path.glob("*.safetensors")) or sorted([*path.glob("*.bin"), *path.glob("*.pt")])
    if not shards or not shards[0].is_file():
        raise FileNotFoundError(f"{path} is no checkpoint: expected *.safetensors, *.bin or *.pt")
    out: dict[str, Tensor] = {}
    for shard in shards:
        tensors = load_file(shard) if shard.suffix == ".safetensors" else _saved_by_torch(shard)
        twice = out.keys() & tensors.keys()
        if twice:
            raise ValueError(f"{shard.name} repeats {sorted(twice)[0]} of another file")
        out |= tensors
    return out


class _Settings:
    """Stands for an object of a class that is not loaded: a plain dictionary of what the file says is in it."""

    def __new__(cls, *_args: object, **_settings: object) -> Any:
        return OrderedDict()  # the one kind of dictionary that torch's reader fills in every way


class _Number:
    """Stands for a number of another library."""

    def __init__(self, *_args: object, **_settings: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _saved_by_torch(path: Path) -> dict[str, Tensor]:
    # Files from before 2020 are no archives; in them only tensors and plain data are read.
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
    stand_ins: list[Any] = []
    for name in unknown:
        kind = _Number if name.startswith("numpy.") else _Settings
        stand_ins.append((type(kind.__name__, (kind,), {}), name))
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is no file of weights that torch saved, is damaged, or holds what is not read"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} holds no weights but a {type(content).__name__}")
    tensors = {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise ValueError(f"{path.name} holds no tensors, only {', '.join(map(str, list(content)[:5]))}")
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return tensors
