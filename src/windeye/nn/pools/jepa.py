"""The attentive pooler of V-JEPA: one block of cross-attention."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.efficient import QUERY_STD
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("jepa")
class JepaPool(TokenPool):
    """``z + feed_forward(norm2(z))`` with ``z = u + proj(attention(u, norm1(x)))`` and a learned token ``u``.

    The learned token asks as it is, without a norm.

    Source: efficient-probing spec; equal to the official module, see tests/models/probing/test_golden_heads.py.

    Example:
        >>> pool = JepaPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 7088640)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 16) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.token = nn.Parameter(torch.empty(1, dim))
        self.norm1 = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim)
        nn.init.trunc_normal_(self.token, std=QUERY_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=QUERY_STD)
                nn.init.zeros_(module.bias)
        with torch.no_grad():  # what is added to the trunk starts smaller
            self.proj.weight.div_(2**0.5)
            self.feed_forward.fc2.weight.div_(2**0.5)

    def reading(self, tokens: Tokens) -> Reading:
        normed = self.norm1(tokens.x)
        asked = toward_tokens(self.query(self.token)[None], self.kv.weight[: self.dim], self.heads)
        return Reading.of(asked, normed, normed, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        found = self.reading(tokens).found(self)
        out = of_heads(found, self.kv.weight[self.dim :], self.kv.bias[self.dim :])[:, 0]
        z = self.token + self.proj(out)
        return z + self.feed_forward(self.norm2(z))
