"""The attentive pool of CAE: cross-attention with a norm for each of query, keys and values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("cae")
class CaePool(TokenPool):
    """``proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h)`` with ``q = norm_q(u) Wq^T``, ``k = norm_k(x) Wk^T``,
    ``v = norm_v(x) Wv^T`` and a learned token ``u``, which starts at zero.

    ``unused_norm`` is in the official files and count of parameters; nothing goes through it.

    Source: efficient-probing spec.

    Example:
        >>> pool = CaePool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 2366976)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.token = nn.Parameter(torch.zeros(1, dim))
        self.norm_q, self.norm_k, self.norm_v = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.unused_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def reading(self, tokens: Tokens) -> Reading:
        query = self.query(self.norm_q(self.token))[None]
        asked = toward_tokens(query, self.key.weight, self.heads)
        return Reading.of(asked, self.norm_k(tokens.x), self.norm_v(tokens.x), self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return self.proj(of_heads(self.reading(tokens).found(self), self.value.weight)[:, 0])
