"""Edits as JSON, to be kept beside results and run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from windeye.sites.edits import Add, Edit, Hide, KeyBias, Patch, Scale, ScoreBoost, Set, SetAttention
from windeye.sites.places import Where, keys_from, to_plain, where_from
from windeye.sites.record import Recording

KINDS: dict[str, type[Edit]] = {
    kind.kind: kind for kind in (KeyBias, ScoreBoost, Hide, SetAttention, Scale, Add, Set, Patch)
}
"""Edits that JSON holds, by name."""


def edits_to_json(edits: Sequence[Edit]) -> str:
    """Edits as JSON: a list of objects with the name of the edit, its arguments, and the layers, heads and rows.

    Raises:
        ValueError: an edit holds a function, or a recording that was not saved.

    Example:
        >>> print(edits_to_json([Scale("z", 0.0, where=Where(heads={3: (1,)}))]))
        [
          {"edit": "scale", "site": "z", "factor": 0.0, "heads": {"3": [1]}}
        ]
    """
    lines = [json.dumps(_plain(edit)) for edit in edits]
    return "[\n  " + ",\n  ".join(lines) + "\n]" if lines else "[]"


def edits_from_json(text: str, model: nn.Module | None = None) -> list[Edit]:
    """Edits that `edits_to_json` wrote, or that somebody wrote by hand: places may be lists of positions or
    ``{"span": [start, stop]}``.

    Args:
        model: whose recordings patches name; needed for patches only.

    Raises:
        ValueError: no JSON, no list, or an edit or argument that there is not; says which and what there is.

    Example:
        >>> edits_from_json('[{"edit": "key_bias", "amount": 1.5, "keys": [0, 3], "rows": "last"}]')[0].amount
        1.5
    """
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"edits are not JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError('edits must be a list of objects such as [{"edit": "scale", "site": "z", "factor": 0.0}]')
    return [_edit(number, entry, model) for number, entry in enumerate(entries)]


def _plain(edit: Edit) -> dict[str, Any]:
    if edit.kind not in KINDS:
        raise ValueError(f"an edit {edit.kind!r} holds a function, which JSON cannot")
    plain: dict[str, Any] = {"edit": edit.kind}
    for argument in _arguments(type(edit)):
        value = getattr(edit, argument)
        if isinstance(value, Recording):
            if value.path is None:
                raise ValueError("a patch can be written once its recording has been saved: recording.save(path)")
            value = str(value.path)
        if isinstance(value, Tensor):
            value = value.tolist()
        if value is not None:
            plain[argument] = to_plain(value)
    where = edit.where
    plain |= {n: to_plain(getattr(where, n)) for n in ("layers", "heads") if getattr(where, n) is not None}
    return plain | ({} if where.rows == "all" else {"rows": to_plain(where.rows)})


def _edit(number: int, entry: dict[str, Any], model: nn.Module | None) -> Edit:
    entry = dict(entry)
    kind = entry.pop("edit", None)
    if kind not in KINDS:
        raise ValueError(f"edits[{number}] is {kind!r}; edits are {', '.join(KINDS)}")
    where: dict[str, Any] = {name: entry.pop(name) for name in ("layers", "heads", "rows") if name in entry}
    names = _arguments(KINDS[kind])
    if unknown := set(entry) - set(names):
        raise ValueError(f"edits[{number}] ({kind}) knows no {', '.join(sorted(unknown))}; it takes {', '.join(names)}")
    try:
        values = {name: _value(name, value, model) for name, value in entry.items()}
        edit = KINDS[kind](**values, where=Where(**where_from(where)))
        edit.check()
    except (TypeError, ValueError) as error:
        raise ValueError(f"edits[{number}] ({kind}): {error}") from error
    return edit


def _value(name: str, value: Any, model: nn.Module | None) -> Any:
    if name == "keys":
        return keys_from(value)
    if name == "weights":
        return {int(position): float(weight) for position, weight in value.items()}
    if name == "recording":
        if model is None:
            raise ValueError("patches need the model that their recording is of")
        return Recording.load(model, Path(value))
    return torch.tensor(value) if isinstance(value, list) else value


def _arguments(kind: type[Edit]) -> list[str]:
    return [field.name for field in fields(kind) if field.name != "where"]
