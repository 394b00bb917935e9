"""What attention logits are made of: one problem that statistics are taken of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.kernels.statistics.relation import Relation

_EVERY = slice(None)

ScoreEdit = Callable[[Tensor, slice], Tensor]
"""From the logits [batch, heads, rows, keys] of some rows, ``-inf`` where nothing is seen, and which rows these are, to
the logits instead."""


@dataclass(frozen=True, eq=False)
class Scores:
    """``softcap tanh(scale q k / softcap) + bias`` where the relation allows it, edited; weights are their softmax.

    ``sink_logits`` are one more logit per head that takes its share and belongs to no key. Tokens are flat.
    """

    query: Float[Tensor, "batch queries heads head_dim"]
    key: Float[Tensor, "batch keys kv_heads head_dim"]
    relation: Relation
    scale: float
    softcap: float | None = None
    sink_logits: Float[Tensor, " heads"] | None = None
    bias: Float[Tensor, "batch heads queries keys"] | None = None
    """Axes may be 1 where all are alike."""
    rows: Bool[Tensor, "batch queries"] | None = None
    """Queries that count in columns; None: all."""
    edits: tuple[ScoreEdit, ...] = ()
    """What is done to the logits before the softmax, one after the other."""

    @property
    def wide(self) -> torch.dtype:
        """What sums are kept in."""
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    @property
    def batch(self) -> int:
        return self.query.shape[0]

    @property
    def heads(self) -> int:
        return self.query.shape[2]

    @property
    def needs_grad(self) -> bool:
        leaves = (self.query, self.key, self.sink_logits, self.bias)
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves)

    def logits(self, rows: slice, keys: slice = _EVERY) -> Float[Tensor, "batch heads rows keys"]:
        """The logits of some rows, or of some keys of them; ``-inf`` where a key is not seen."""
        query, key = self.query[:, rows].to(self.wide), self.key[:, keys].to(self.wide)
        batch, count, heads, _ = query.shape
        kv_heads = key.shape[2]
        # Query heads that share keys are rows of one product.
        shared = query.reshape(batch, count, kv_heads, -1, query.shape[3]).permute(0, 2, 3, 1, 4).flatten(2, 3)
        logits = (shared @ key.permute(0, 2, 3, 1)).reshape(batch, heads, count, key.shape[1]) * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        if self.bias is not None:
            bias = self.bias if self.bias.shape[2] == 1 else self.bias[:, :, rows]
            logits = logits + (bias if bias.shape[3] == 1 else bias[..., keys]).to(self.wide)
        logits = logits.masked_fill(~self.relation.visible(rows, keys), -torch.inf)
        for edit in self.edits:
            logits = edit(logits, rows)
        return logits

    def distance(self, rows: slice, keys: slice = _EVERY) -> Int[Tensor, "rows keys"]:
        """Query position minus key position."""
        query = torch.arange(rows.start, rows.stop, device=self.query.device) + self.relation.offset
        return query[:, None] - torch.arange(self.relation.keys, device=self.query.device)[keys]

    def counting(self, rows: Bool[Tensor, "batch queries"] | None) -> Scores:
        """The same scores, of which only these queries count in columns."""
        return self if rows is None else replace(self, rows=rows)

    def detached(self) -> Scores:
        """The same numbers without a graph."""
        plain = {
            name: tensor.detach()
            for name in ("query", "key", "sink_logits", "bias")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **plain)
