"""Weights under official names: tables of rules that read in both directions, strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's tensors; everything else raised an error."""

    loaded: tuple[str, ...]
    copies: tuple[str, ...]
    """Checked to be copies of loaded tensors."""
    dropped: tuple[str, ...]
    """Known not to be weights."""
    resized: tuple[str, ...] = ()
    """Loaded ones that had another size."""

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded, {len(self.copies)} copies, {len(self.dropped)} dropped"
        return text + (f", {len(self.resized)} resized" if self.resized else "")


@dataclass(frozen=True)
class Rule:
    """Official tensors and how they become one of ours. Both directions keep every bit."""

    names: tuple[str, ...]
    to_ours: Callable[[Sequence[Tensor], Shape], Tensor]
    """From the official tensors and the shape of ours."""
    to_theirs: Callable[[Tensor], Sequence[Tensor]]
    resize: Callable[[Tensor, Shape], Tensor] | None = None
    """An official tensor of another size, brought to this shape; None where no size may differ."""


def stacked(*names: str) -> Rule:
    """Tensors that are stacked along the first axis in ours; one is itself."""
    return Rule(
        names,
        lambda parts, _: parts[0] if len(parts) == 1 else torch.cat(tuple(parts)),
        lambda tensor: (tensor,) if len(names) == 1 else tensor.chunk(len(names)),
    )


@dataclass(frozen=True)
class WeightMap:
    """Our names and the official ones. Words in braces stand for numbers, the same on both sides.

    Example:
        >>> names = WeightMap("a paper", {"blocks.{layer}.glu.weight": ("h.{layer}.up", "h.{layer}.gate")})
        >>> names.official("blocks.3.glu.weight")
        ('h.3.up', 'h.3.gate')
    """

    name: str
    rules: Mapping[str, str | tuple[str, ...] | Rule]
    """Our name -> the official one, or several whose tensors are stacked along the first axis in ours, or a rule."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Official name -> our tensor that it repeats where the model has no own tensor for it."""
    prefix: str = ""
    """May stand in front of official names."""
    dropped: str = r"(?!)"
    """Regular expression of official names that are not weights."""
    regenerated: Callable[[Any], Mapping[str, Tensor]] | None = None
    """What a model's official file holds besides weights."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Parts of names in earlier releases -> what they are called now. Both are read."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Regular expression of names that only another kind of model has -> what to say of such a checkpoint."""
    signature: str = r"(?!)"
    """Regular expression of a name that files of this family have."""
    settings: Callable[[Mapping[str, Tensor]], dict[str, Any]] | None = None
    """Settings of the family's builder that can be read off an official file, such as the number of classes."""
    published: bool = True
    """Whether there are official files; otherwise their names are ours, of a re-design without official code."""

    def rule(self, ours: str) -> Rule:
        """How one of our tensors is made.

        Raises:
            KeyError: no rule names it.
        """
        for template, theirs in self.rules.items():
            found = _expression(template).fullmatch(ours)
            if found is not None:
                numbers = found.groupdict()
                if isinstance(theirs, Rule):
                    names = tuple(name.format(**numbers) for name in theirs.names)
                    return Rule(names, theirs.to_ours, theirs.to_theirs, theirs.resize)
                names = (theirs,) if isinstance(theirs, str) else theirs
                return stacked(*(name.format(**numbers) for name in names))
        raise KeyError(f"{self.name} has no name for {ours}")

    def official(self, ours: str) -> tuple[str, ...]:
        """The official names of one of our tensors.

        Raises:
            KeyError: no rule names it.
        """
        return self.rule(ours).names

    def shapes(self, model: nn.Module) -> dict[str, Shape]:
        """Official names and shapes of a model's weights."""
        shapes: dict[str, Shape] = {}
        for ours, tensor in model.state_dict().items():
            rule = self.rule(ours)
            parts = rule.to_theirs(tensor)
            shapes |= {name: tuple(part.shape) for name, part in zip(rule.names, parts, strict=True)}
        return shapes

    def export(self, model: nn.Module, *, earlier: bool = False) -> dict[str, Tensor]:
        """The weights of a model under official names, or those of earlier releases; tied copies are written out."""
        state = model.state_dict()
        out: dict[str, Tensor] = {}
        for ours, tensor in state.items():
            rule = self.rule(ours)
            parts = rule.to_theirs(tensor)
            out |= {
                name: part.clone(memory_format=torch.contiguous_format)
                for name, part in zip(rule.names, parts, strict=True)
            }
        out |= {theirs: state[ours].clone() for theirs, ours in self.tied.items() if theirs not in out}
        if self.regenerated is not None:
            out |= self.regenerated(model)
        if not earlier:
            return out
        past = {now: then for then, now in self.earlier.items()}
        return {_replaced(name, past): tensor for name, tensor in out.items()}

    def load(self, model: nn.Module, checkpoint: Mapping[str, Tensor], *, resize: bool = False) -> LoadReport:
        """Fill a model from official weights; nothing is left over, nothing is missing.

        Args:
            model: of the sizes of the checkpoint.
            checkpoint: official names and tensors.
            resize: whether tensors that are bound to the size of a window or a map may be interpolated to the model's.

        Raises:
            ValueError: names or shapes do not fit, or a tied tensor differs from what it repeats; lists all of them.
                The model is then unchanged.
        """
        found, dropped = self._found(checkpoint)
        state = model.state_dict()
        rules = {ours: self.rule(ours) for ours in state}
        names = [name for rule in rules.values() for name in rule.names]
        tied = {theirs: ours for theirs, ours in self.tied.items() if theirs not in names and theirs in found}

        wrong = [f"missing {name}" for name in names if name not in found]
        wrong += [f"unexpected {name} {tuple(found[name].shape)}" for name in found if name not in {*names, *tied}]
        resized = []
        for ours, rule in rules.items():
            for name, part in zip(rule.names, rule.to_theirs(state[ours]), strict=True):
                shape = tuple(part.shape)
                if name not in found or tuple(found[name].shape) == shape:
                    continue
                if rule.resize is not None and resize:
                    found[name] = rule.resize(found[name], shape)
                    resized.append(name)
                    continue
                hint = "" if rule.resize is None else "; resize=True interpolates it"
                wrong.append(f"{name} has shape {tuple(found[name].shape)} but the model needs {shape}{hint}")
        if not wrong:
            wrong += [
                f"{theirs} should repeat {rules[ours].names[0]} but differs: build the model with an untied head"
                for theirs, ours in tied.items()
                if not torch.equal(found[theirs], found[rules[ours].names[0]])
            ]
        if wrong:
            raise ValueError(f"this checkpoint is not a {self.name} of these sizes:\n  " + "\n  ".join(wrong))
        with torch.no_grad():
            for ours, rule in rules.items():
                state[ours].copy_(rule.to_ours([found[name] for name in rule.names], tuple(state[ours].shape)))
        return LoadReport(tuple(names), tuple(tied), tuple(dropped), tuple(resized))

    def _found(self, checkpoint: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The weights under today's names, and what is none."""
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
        return {name: tensor for name, tensor in found.items() if name not in dropped}, dropped


@lru_cache(maxsize=4096)
def _expression(template: str) -> re.Pattern[str]:
    """Templates as expressions whose groups are the numbers."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(rf"(?P<{part}>\d+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    )


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = name.replace(part, other)
    return name
