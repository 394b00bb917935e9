"""The attention pool of CoCa: heads of queries that share one head of keys and values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("coca")
class CocaPool(TokenPool):
    """``proj(concat_h softmax(q_h k^T / sqrt(head_dim)) v)`` with ``q = norm(u) Wq^T`` of the first learned token.

    CoCa asks with many tokens and probes with the first; the others have no part in the result, but are in its files.

    Args:
        dim: channels of the tokens.
        heads, head_dim: heads of the query, and the width of each of them and of the keys and values that they share.
        queries: learned tokens, of which the first asks.

    Source: efficient-probing spec.

    Example:
        >>> pool = CocaPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 1036032)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 8, *, head_dim: int = 64, queries: int = 196) -> None:
        super().__init__(dim)
        self.heads, self.head_dim = check_count("heads", heads), check_count("head_dim", head_dim)
        self.norm = nn.LayerNorm(dim, bias=False)
        self.queries = nn.Parameter(torch.randn(check_count("queries", queries), dim))
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.kv = nn.Linear(dim, 2 * head_dim, bias=False)
        self.proj = nn.Linear(heads * head_dim, dim, bias=False)

    def reading(self, tokens: Tokens) -> Reading:
        query = self.query(self.norm(self.queries[:1]))[None]
        asked = toward_tokens(query, self.kv.weight[: self.head_dim], self.heads)
        return Reading.of(asked, tokens.x, tokens.x, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        out = self.reading(tokens).found(self)[:, 0] @ self.kv.weight[self.head_dim :].T
        return self.proj(out.flatten(1))
