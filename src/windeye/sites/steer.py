"""Edits at work on a model for as long as a ``with`` lasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from windeye.sites.call import AttentionCall, RowEdit
from windeye.sites.edits import Edit, ScoreChange, SetAttention, TensorChange
from windeye.sites.places import Keys, Where
from windeye.sites.session import MODEL_SITES, STREAM_SITES, Session


class Steering(Session):
    """Applies edits in the order in which they are given; nothing of the model itself is changed. See `steer`."""

    def __init__(self, model: nn.Module, edits: Sequence[Edit]) -> None:
        super().__init__(model)
        if isinstance(edits, Edit) or not all(isinstance(edit, Edit) for edit in edits):
            raise TypeError(f"edits must be a list of edits such as [Scale('z', 0.0)], got {edits!r}")
        self.changes = tuple(edits)
        for number, edit in enumerate(self.changes):
            edit.check()
            edit.where.check(len(self.parts.layers), _heads(self.parts.heads, edit), f"edits[{number}] ({edit.kind})")
        _refuse_conflicts(self.changes, len(self.parts.layers))
        self._scores = [edit for edit in self.changes if isinstance(edit, ScoreChange)]
        self._tensors = [edit for edit in self.changes if isinstance(edit, TensorChange)]
        self._past: int | Tensor = 0

    def begin(self, past: int | Tensor) -> None:
        self._past = past

    def stream_sites(self) -> Iterable[tuple[str, int]]:
        for edit in self._tensors:
            if edit.site in MODEL_SITES:
                yield edit.site, 0
            elif edit.site in STREAM_SITES:
                yield from ((edit.site, layer) for layer in range(len(self.parts.layers)) if edit.where.has(layer))

    def before(self, layer: int, call: AttentionCall) -> AttentionCall:
        for site, tensor in (("q", call.query), ("k", call.key), ("v", call.value)):
            if any(edit.site == site for edit in self._tensors):
                positions = call.query_positions() if site == "q" else call.key_positions()
                call = call.with_tensor(site, self._edited(site, layer, tensor, positions))
        return call

    def edits(self, layer: int, call: AttentionCall) -> Sequence[RowEdit]:
        rows = (edit.on(call, layer) for edit in self._scores if edit.where.has(layer))
        return [row for row in rows if row is not None]

    def output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        if any(edit.site == "z" for edit in self._tensors):
            return self._edited("z", layer, out, call.query_positions())
        return out

    def at(self, site: str, layer: int, tensor: Tensor) -> Tensor:
        first = torch.as_tensor(self._past, device=tensor.device).reshape(-1, 1)
        return self._edited(site, layer, tensor, first + torch.arange(tensor.shape[1], device=tensor.device))

    def _edited(self, site: str, layer: int, tensor: Tensor, positions: Tensor) -> Tensor:
        for edit in self._tensors:
            if edit.site == site and (site in MODEL_SITES or edit.where.has(layer)):
                touched = edit.where.rows_of(positions, tensor.shape[0])
                if bool(touched.any()):
                    first = int(positions.min())
                    tensor = edit.on(tensor, layer, touched, slice(first, first + tensor.shape[1]))
        return tensor


def steer(model: nn.Module, edits: Sequence[Edit]) -> Steering:
    """Edit what passes through a model while this is open.

    Args:
        model: one of ours, or one of transformers after `windeye.hf.attach`.
        edits: in the order in which they are applied; see `windeye.sites.edits`.

    Raises:
        ValueError, IndexError, TypeError: edits name sites, layers or heads that there are not, or contradict each
            other; says what there is.

    Example:
        >>> from windeye.models import transformer
        >>> from windeye.sites import Scale
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> ids = torch.arange(6)[None]
        >>> plain = model(ids)
        >>> with steer(model, [Scale("z", 0.0, where=Where(heads={1: (2, 3)}))]):
        ...     ablated = model(ids)
        >>> torch.equal(plain, model(ids)), torch.equal(plain, ablated)
        (True, False)
    """
    return Steering(model, edits)


def _heads(heads: int | None, edit: Edit) -> int | None:
    """Query heads, which keys and values may have fewer of."""
    return None if isinstance(edit, TensorChange) and edit.site in ("k", "v") else heads


def _refuse_conflicts(edits: Sequence[Edit], layers: int) -> None:
    """Two edits that each replace the whole of the same place cannot both be meant."""
    replacing = [e for e in edits if isinstance(e, SetAttention) or (isinstance(e, TensorChange) and e.replaces)]
    for one, other in combinations(replacing, 2):
        site, same = (e.site if isinstance(e, TensorChange) else "scores" for e in (one, other))
        if site == same and (where := _overlap(one.where, other.where, layers)) is not None:
            raise ValueError(f"{one.kind} and {other.kind} both replace {site!r} {where}; leave one of them out")


def _overlap(one: Where, other: Where, layers: int) -> str | None:
    if one.rows != other.rows and (isinstance(one.rows, Keys) or isinstance(other.rows, Keys)):
        positions = [w.rows.positions() if isinstance(w.rows, Keys) else None for w in (one, other)]
        if positions[0] is not None and positions[1] is not None and not positions[0] & positions[1]:
            return None
    for layer in range(layers):
        if one.has(layer) and other.has(layer):
            heads = [w.heads[layer] if isinstance(w.heads, Mapping) else w.heads for w in (one, other)]
            shared = set(heads[0]) & set(heads[1]) if heads[0] is not None and heads[1] is not None else {"all"}
            if shared:
                return f"in layer {layer}, heads {', '.join(map(str, sorted(shared, key=str)))}"
    return None
