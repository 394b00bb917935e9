"""Weights under official names: tables of rules that read in both directions, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's tensors; everything else raised an error."""

    loaded: tuple[str, ...]
    copies: tuple[str, ...]
    """Checked to be copies of loaded tensors."""
    dropped: tuple[str, ...]
    """Known not to be weights."""

    def __str__(self) -> str:
        return f"{len(self.loaded)} tensors loaded, {len(self.copies)} copies, {len(self.dropped)} dropped"


@dataclass(frozen=True)
class WeightMap:
    """Our names and the official ones. ``{layer}`` stands for the number of a layer, the same on both sides.

    Example:
        >>> names = WeightMap("a paper", {"blocks.{layer}.glu.weight": ("h.{layer}.up", "h.{layer}.gate")})
        >>> names.official("blocks.3.glu.weight")
        ('h.3.up', 'h.3.gate')
    """

    name: str
    rules: Mapping[str, str | tuple[str, ...]]
    """Our name -> the official one, or several whose tensors are stacked along the first axis in ours."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Official name -> our tensor that it repeats where the model has no own tensor for it."""
    prefix: str = ""
    """May stand in front of official names."""
    dropped: str = r"(?!)"
    """Regular expression of official names that are not weights."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Parts of names in earlier releases -> what they are called now. Both are read."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Regular expression of names that only another kind of model has -> what to say of such a checkpoint."""

    def official(self, ours: str) -> tuple[str, ...]:
        """The official names of one of our tensors.

        Raises:
            KeyError: no rule names it.
        """
        layer = re.search(r"\.(\d+)\.", ours)
        template = ours if layer is None else f"{ours[: layer.start()]}.{{layer}}.{ours[layer.end() :]}"
        if template not in self.rules:
            raise KeyError(f"{self.name} has no name for {ours}")
        theirs = self.rules[template]
        number = "" if layer is None else layer[1]
        return tuple(t.format(layer=number) for t in ((theirs,) if isinstance(theirs, str) else theirs))

    def export(self, model: nn.Module, *, earlier: bool = False) -> dict[str, Tensor]:
        """The weights of a model under official names, or those of earlier releases; tied copies are written out."""
        state = model.state_dict()
        out: dict[str, Tensor] = {}
        for ours, tensor in state.items():
            theirs = self.official(ours)
            out |= {name: part.clone() for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True)}
        out |= {theirs: state[ours].clone() for theirs, ours in self.tied.items() if theirs not in out}
        if not earlier:
            return out
        past = {now: then for then, now in self.earlier.items()}
        return {_replaced(name, past): tensor for name, tensor in out.items()}

    def load(self, model: nn.Module, checkpoint: Mapping[str, Tensor]) -> LoadReport:
        """Fill a model from official weights; nothing is left over, nothing is missing.

        Raises:
            ValueError: names or shapes do not fit, or a tied tensor differs from what it repeats; lists all of them.
                The model is then unchanged.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in checkpoint.items():
            for pattern, reason in self.foreign.items():
                if re.search(pattern, name):
                    raise ValueError(f"this checkpoint is not a {self.name}: {name} says that {reason}")
            now = _replaced(name.removeprefix(self.prefix), self.earlier)
            if now in found:
                raise ValueError(f"this checkpoint is not a {self.name}: it has {now} under two names, {name} is one")
            found[now] = tensor
        dropped = [name for name in found if re.fullmatch(self.dropped, name)]
        for name in dropped:
            del found[name]
        state = model.state_dict()
        wanted = {ours: self.official(ours) for ours in state}
        names = [name for theirs in wanted.values() for name in theirs]
        tied = {theirs: ours for theirs, ours in self.tied.items() if theirs not in names and theirs in found}

        wrong = [f"missing {name}" for name in names if name not in found]
        wrong += [f"unexpected {name} {tuple(found[name].shape)}" for name in found if name not in {*names, *tied}]
        for ours, theirs in wanted.items():
            rows, *rest = state[ours].shape
            shape = (rows // len(theirs), *rest)
            for name in theirs:
                if name in found and tuple(found[name].shape) != shape:
                    wrong.append(f"{name} has shape {tuple(found[name].shape)} but the model needs {shape}")
        if not wrong:
            wrong += [
                f"{theirs} should repeat {wanted[ours][0]} but differs: build the model with an untied head"
                for theirs, ours in tied.items()
                if not torch.equal(found[theirs], found[wanted[ours][0]])
            ]
        if wrong:
            raise ValueError(f"this checkpoint is not a {self.name} of these sizes:\n  " + "\n  ".join(wrong))
        with torch.no_grad():
            for ours, theirs in wanted.items():
                for part, name in zip(state[ours].chunk(len(theirs)), theirs, strict=True):
                    part.copy_(found[name])
        return LoadReport(tuple(names), tuple(tied), tuple(dropped))


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = name.replace(part, other)
    return name


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file, or of the shards in a folder: safetensors, or what torch saved (weights only).

    Raises:
        FileNotFoundError: nothing of that kind is there.
        ValueError: two shards hold the same name.
    """
    path = Path(path)
    shards = [path]
    if path.is_dir():
        shards = sorted(path.glob("*.safetensors")) or sorted([*path.glob("*.bin"), *path.glob("*.pt")])
    if not shards or not shards[0].is_file():
        raise FileNotFoundError(f"{path} is no checkpoint: expected *.safetensors, *.bin or *.pt")
    out: dict[str, Tensor] = {}
    for shard in shards:
        if shard.suffix == ".safetensors":
            tensors = load_file(shard)
        else:
            tensors = torch.load(shard, map_location="cpu", weights_only=True)
            tensors = tensors.get("state_dict", tensors)
        twice = out.keys() & tensors.keys()
        if twice:
            raise ValueError(f"{shard.name} repeats {sorted(twice)[0]} of another file")
        out |= tensors
    return out
