"""One call of attention in some model, as sessions see it; and the door through which every call goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.statistics.relation import Relation
from windeye.kernels.statistics.scores import ScoreEdit, Scores
from windeye.kernels.statistics.slab import BYTES, RowSlab

Run = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model's own attention, from query, key and value to the output of each head."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one layer computes: ``out = softmax(scores) value`` per head, heads last but one.

    ``key_start`` is the position in the sequence of the first key at hand, per batch entry where they differ: caches
    may have dropped older ones.
    """

    query: Float[Tensor, "batch queries heads head_dim"]
    key: Float[Tensor, "batch keys kv_heads head_dim"]
    value: Float[Tensor, "batch keys kv_heads value_dim"]
    scale: float
    relation_of: Callable[[], Relation]
    run: Run
    softcap: float | None = None
    sink_logits: Float[Tensor, " heads"] | None = None
    bias: Float[Tensor, "batch heads queries keys"] | None = None
    key_start: int | Int[Tensor, " batch"] = 0
    takes_channels: bool = True
    """Whether ``run`` is right for queries, keys and values of more channels than the model's own."""

    @cached_property
    def relation(self) -> Relation:
        """Who sees whom; made when somebody asks."""
        return self.relation_of()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, queries, heads and keys."""
        return (*self.query.shape[:3], self.key.shape[1])

    def key_positions(self) -> Int[Tensor, "batch keys"]:
        """Where in their sequences the keys stand."""
        start = torch.as_tensor(self.key_start, device=self.key.device).reshape(-1, 1)
        return start + torch.arange(self.key.shape[1], device=self.key.device)

    def query_positions(self) -> Int[Tensor, "batch queries"]:
        """Where in their sequences the queries stand."""
        start = torch.as_tensor(self.key_start, device=self.key.device).reshape(-1, 1) + self.relation.offset
        return start + torch.arange(self.query.shape[1], device=self.key.device)

    def scores(self, edits: Sequence[ScoreEdit] = ()) -> Scores:
        """What the weights are made of."""
        return Scores(
            self.query, self.key, self.relation, self.scale, self.softcap, self.sink_logits, self.bias,
            edits=tuple(edits),
        )  # fmt: skip

    def with_tensor(self, site: str, tensor: Tensor) -> AttentionCall:
        """The call with other queries "q", keys "k" or values "v"."""
        if site == "q":
            return replace(self, query=tensor)
        return replace(self, key=tensor) if site == "k" else replace(self, value=tensor)


class Listener(Protocol):
    """What a session does at an attention call; each gives the thing back, edited or not."""

    def layer_of(self, module: nn.Module) -> int | None:
        """The layer that this call is, or None where the session does not look."""
        ...

    def before(self, layer: int, call: AttentionCall) -> AttentionCall: ...

    def edits(self, layer: int, call: AttentionCall) -> Sequence[RowEdit]: ...

    def output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor: ...

    def see(self, layer: int, call: AttentionCall, scores: Scores) -> None: ...


@dataclass(frozen=True, eq=False)
class RowEdit:
    """A change of logits, the queries it may touch (False elsewhere), and the heads."""

    apply: ScoreEdit
    rows: Tensor
    """bool [queries]: where any batch entry is touched."""
    heads: tuple[int, ...]
    additive: tuple[Tensor, Tensor] | None = None
    """``(a, b)`` with ``logits + a[batch, queries, heads] b[batch, keys]`` where the change is that, and finite."""


LISTENERS: list[Listener] = []
"""Sessions that are open, the oldest first."""


def attention(module: nn.Module, call: AttentionCall) -> Float[Tensor, "batch queries heads value_dim"]:
    """The output of one attention call, with what open sessions make of it."""
    if not LISTENERS:
        return call.run(call.query, call.key, call.value)
    here = [(listener, layer) for listener in LISTENERS if (layer := listener.layer_of(module)) is not None]
    for listener, layer in here:
        call = listener.before(layer, call)
    edits = [edit for listener, layer in here for edit in listener.edits(layer, call)]
    out = _edited(call, edits) if edits else call.run(call.query, call.key, call.value)
    for listener, layer in here:
        out = listener.output(layer, call, out)
    scores: Scores | None = None
    for listener, layer in here:
        scores = scores or call.scores([edit.apply for edit in edits])
        listener.see(layer, call, scores)
    return out


def _edited(call: AttentionCall, edits: Sequence[RowEdit]) -> Tensor:
    """The output with edited logits: in one fused pass where all edits are sums of products, else the fused pass of
    the model and the edited rows of the edited heads computed again and written over."""
    rows = torch.stack([edit.rows for edit in edits]).any(dim=0)
    # So few rows that computing them again is cheaper than a wider pass.
    few = int(rows.sum()) * 8 <= call.query.shape[1]
    sums = [edit.additive for edit in edits if edit.additive is not None]
    if len(sums) == len(edits) and call.takes_channels and not few:
        return _with_extra_channels(call, sums)
    heads = sorted({head for edit in edits for head in edit.heads})
    everything = bool(rows.all()) and len(heads) == call.query.shape[2]
    out = call.value.new_empty(*call.query.shape[:3], call.value.shape[3])
    if not everything:
        out = call.run(call.query, call.key, call.value).clone()
    scores = call.scores([edit.apply for edit in edits])
    for chunk in _chunks(rows, call):
        out[:, chunk, :, :] = _where_heads(out[:, chunk], _rows(scores, chunk, call.value), heads)
    return out


def _chunks(rows: Tensor, call: AttentionCall) -> list[slice]:
    """The touched rows in ranges of neighbours whose logits fit the memory of a slab."""
    batch, _, heads, keys = call.shape
    most = max(1, BYTES // max(1, 4 * batch * heads * keys))
    chunks: list[slice] = []
    for row in rows.nonzero()[:, 0].tolist():
        if chunks and chunks[-1].stop == row and row - chunks[-1].start < most:
            chunks[-1] = slice(chunks[-1].start, row + 1)
        else:
            chunks.append(slice(row, row + 1))
    return chunks


def _rows(scores: Scores, rows: slice, value: Tensor) -> Float[Tensor, "batch rows heads value_dim"]:
    """Outputs of whole rows, exactly."""
    weights = RowSlab(scores, rows, scores.logits(rows)).weights
    batch, heads, count, keys = weights.shape
    kv_heads = value.shape[2]
    shared = weights.reshape(batch, kv_heads, -1, keys) @ value.to(weights.dtype).transpose(1, 2)
    return shared.reshape(batch, heads, count, -1).transpose(1, 2).to(value.dtype)


def _where_heads(before: Tensor, after: Tensor, heads: list[int]) -> Tensor:
    """``after`` at these heads, ``before`` at the others."""
    if len(heads) == before.shape[2]:
        return after
    out = before.clone()
    out[:, :, heads] = after[:, :, heads]
    return out


def _with_extra_channels(call: AttentionCall, sums: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """``logits + a b`` by a channel ``a / scale`` more of the queries and ``b`` more of the keys. Widths are filled up
    with zeros to a multiple of 8, values too, because fused kernels want them alike."""
    batch, _, heads, _ = call.shape
    kv_heads, width = call.key.shape[2:]
    more = -(width + len(sums)) % 8 + len(sums)
    query = torch.nn.functional.pad(call.query, (0, more))
    key = torch.nn.functional.pad(call.key, (0, more))
    value = torch.nn.functional.pad(call.value, (0, width + more - call.value.shape[3]))
    for channel, (a, b) in enumerate(sums, start=width):
        query[..., channel] = (a / call.scale).expand(batch, -1, heads)
        key[..., channel] = b[..., None].expand(batch, -1, kv_heads)
    return call.run(query, key, value)[..., : call.value.shape[3]]
