"""States in files: a conversation can be put away and taken up again, by another process too."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from windeye.memory.hybrid import HybridState
from windeye.memory.state import State
from windeye.memory.tensors import TensorState

HEADER = "windeye.state"


def save_state(state: State, path: str | Path) -> None:
    """Write a state as a safetensors file.

    Raises:
        TypeError: a kind of state that is not made of tensors and hybrids of such.

    Example:
        >>> import tempfile
        >>> from windeye.memory import RecurrentState
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(RecurrentState(torch.tensor([7]), torch.ones(1, 2, 4, 4)), f"{folder}/state.safetensors")
        ...     load_state(f"{folder}/state.safetensors").seen
        tensor([7])
    """
    tensors: dict[str, Tensor] = {}
    kinds = _describe(state, "", tensors)
    save_file(tensors, path, metadata={HEADER: json.dumps(kinds)})


def load_state(path: str | Path, device: torch.device | str = "cpu") -> State:
    """Read what `save_state` wrote.

    Raises:
        ValueError: the file holds no state, or one of an unknown kind.
    """
    with safe_open(path, framework="pt", device=str(device)) as file:
        header = (file.metadata() or {}).get(HEADER)
        if header is None:
            raise ValueError(f"{path} holds no state of windeye")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return _build(json.loads(header), "", tensors)


def _describe(state: State, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The kind and the settings of a state; its tensors go into ``tensors`` under ``prefix``."""
    if isinstance(state, HybridState):
        return {"layers": [_describe(layer, f"{prefix}{i}.", tensors) for i, layer in enumerate(state.layers)]}
    if not isinstance(state, TensorState):
        raise TypeError(f"{type(state).__name__} is not a state of tensors and has no file form")
    held = state.tensors()
    # Tensors that share memory are refused by the format, and expanded ones have none of their own.
    tensors |= {prefix + name: tensor.detach().contiguous().clone() for name, tensor in held.items()}
    settings = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in held}
    return {"kind": type(state).__name__, "settings": settings}


def _build(kinds: dict[str, Any], prefix: str, tensors: dict[str, Tensor]) -> State:
    if "layers" in kinds:
        return HybridState([_build(layer, f"{prefix}{i}.", tensors) for i, layer in enumerate(kinds["layers"])])
    kind = TensorState.kinds.get(kinds["kind"])
    if kind is None:
        raise ValueError(f"unknown kind of state {kinds['kind']!r}; known are {', '.join(sorted(TensorState.kinds))}")
    names = [f.name for f in fields(kind) if f.name not in kinds["settings"]]
    return kind(**{name: tensors[prefix + name] for name in names}, **kinds["settings"])
