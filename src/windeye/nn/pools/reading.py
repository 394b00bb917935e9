"""What a few queries find among many tokens.

A pool asks with a handful of queries, so attention is two products with the tokens and a softmax between them; weights
are one number per query and token. Where keys and values are linear maps of the tokens no token goes through them: the
query goes through the transposed map of the keys, and what a head found goes through the map of the values,

    softmax(q (x Wk^T)^T) (x Wv^T) = (softmax((q Wk) x^T) x) Wv^T,

which takes ``2 heads`` products of a token's width per token instead of ``2 dim``. A bias of keys is the same for all
tokens and drops out; one of values is added at the end, as weights add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.pools.tokens import Tokens
from windeye.nn.sited import sited
from windeye.patterns import Full

_EVERYTHING = Full()


@dataclass(frozen=True, eq=False)
class Reading:
    """The attention of a pool: ``softmax(scale query key^T) value`` of each query and head."""

    query: Float[Tensor, "batch_or_1 queries heads dim"]
    key: Float[Tensor, "batch keys kv_heads dim"]
    value: Float[Tensor, "batch keys kv_heads value_dim"]
    scale: float
    padding: Bool[Tensor, "batch keys"] | None = None
    first: int = 0
    """Which key is the first token; those before it are a pool's own."""

    @classmethod
    def of(
        cls,
        query: Float[Tensor, "batch_or_1 queries heads dim"],
        key: Float[Tensor, "batch keys dim"],
        value: Float[Tensor, "batch keys dim"],
        scale: float,
        tokens: Tokens,
    ) -> Reading:
        """One row of keys and values for all heads, with the padding of the tokens, which stand last among them."""
        first = key.shape[1] - tokens.x.shape[1]
        padding = tokens.padding
        if padding is not None and first:
            padding = torch.cat([padding.new_zeros(padding.shape[0], first), padding], dim=1)
        return cls(query, key[:, :, None], value[:, :, None], scale, padding, first)

    def found(self, layer: nn.Module) -> Float[Tensor, "batch queries heads value_dim"]:
        """What each head of each query found; a call that sessions on ``layer`` see."""

        def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            weights = _weights(query, key, self.scale, self.padding)
            groups, heads = value.shape[2], query.shape[2]
            out = weights.transpose(-2, -1) @ value.transpose(1, 2)  # [batch, groups, queries x sharing, value_dim]
            return torch.unflatten(out, 2, (query.shape[1], heads // groups)).transpose(1, 2).flatten(2, 3)

        query = self.query.expand(self.key.shape[0], -1, -1, -1)
        return sited(
            layer, query, self.key, self.value, _EVERYTHING, scale=self.scale, key_padding=self.padding, run=run
        )

    def maps(self) -> Float[Tensor, "batch maps tokens"]:
        """The weights of every query and head over the tokens, queries outermost. A row adds up to one, but for what a
        pool's own keys got."""
        batch, queries, heads = self.key.shape[0], *self.query.shape[1:3]
        query = self.query.expand(batch, -1, -1, -1)
        weights = _weights(query, self.key, self.scale, self.padding)[:, :, self.first :]
        groups = self.key.shape[2]
        rows = torch.unflatten(weights, -1, (queries, heads // groups)).permute(0, 3, 1, 4, 2)
        return rows.flatten(1, 3)


def _weights(
    query: Float[Tensor, "batch queries heads dim"],
    key: Float[Tensor, "batch keys groups dim"],
    scale: float,
    padding: Bool[Tensor, "batch keys"] | None,
) -> Float[Tensor, "batch groups keys rows"]:
    """Softmax over the keys, for each group of heads that share them; rows are queries x heads of a group."""
    groups = key.shape[2]
    alike = query.shape[0] > 1 and query.stride(0) == 0  # one query for all batch entries
    asked = scale * (query[:1] if alike else query)
    asked = torch.unflatten(asked, 2, (groups, -1)).transpose(1, 2).flatten(2, 3)  # [batch, groups, rows, dim]
    if groups == 1 and asked.shape[0] == 1:
        scores = F.linear(key[:, :, 0], asked[0, 0])[:, None]  # one product, whose gradient is one, too
    else:
        scores = key.transpose(1, 2) @ asked.mT
    exact = scores if scores.dtype == torch.float64 else scores.float()
    if padding is None:
        return exact.softmax(dim=2).to(scores.dtype)
    hidden = padding[:, None, :, None]
    # Finite, so that a row of nothing but padding stays finite.
    weights = exact.masked_fill(hidden, torch.finfo(exact.dtype).min).softmax(dim=2)
    return weights.masked_fill(hidden, 0.0).to(scores.dtype)


def toward_tokens(
    query: Float[Tensor, "batch_or_1 queries inner"], weight: Float[Tensor, "key_inner dim"], heads: int
) -> Float[Tensor, "batch_or_1 queries heads dim"]:
    """Each head's query through the transposed map of the keys: what to multiply tokens with. ``weight`` has the rows
    of all heads, or those of one that all share."""
    parts = torch.unflatten(query, -1, (heads, -1))
    shared = weight.shape[0] == parts.shape[-1]
    return parts @ weight if shared else torch.einsum("bqhw,hwd->bqhd", parts, torch.unflatten(weight, 0, (heads, -1)))


def of_heads(
    found: Float[Tensor, "batch queries heads dim"],
    weight: Float[Tensor, "value_inner dim"],
    bias: Float[Tensor, " value_inner"] | None = None,
) -> Float[Tensor, "batch queries inner"]:
    """What each head found through its rows of the map of the values, side by side."""
    heads = found.shape[2]
    out = torch.einsum("bqhd,hwd->bqhw", found, torch.unflatten(weight, 0, (heads, -1))).flatten(2)
    return out if bias is None else out + bias
