"""Class attention of CaiT: a block in which only the class token changes."""

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


@token_pool("cait")
class CaitPool(TokenPool):
    """``norm(z + g2 feed_forward(norm2(z)))`` with ``z = c + g1 proj(attention(norm1(c), norm1([c; x])))``, where ``c``
    is a learned token and a key, too; maps are the weights of the tokens.

    Source: efficient-probing spec.

    Example:
        >>> pool = CaitPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 7091712)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 4, *, layer_scale: float = 1e-5) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.norm1 = nn.LayerNorm(dim, 1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, 1e-6)
        self.feed_forward = FeedForward(dim, 4 * dim)
        self.scale1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.scale2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm = nn.LayerNorm(dim)
        self.token = nn.Parameter(torch.empty(1, dim))
        nn.init.trunc_normal_(self.token, std=QUERY_STD)

    def reading(self, tokens: Tokens) -> Reading:
        own = self.norm1(self.token)
        y = torch.cat([own.expand(tokens.x.shape[0], -1, -1), self.norm1(tokens.x)], dim=1)
        of_query, of_key, _ = self.qkv.weight.chunk(3)
        query = nn.functional.linear(own, of_query, self.qkv.bias[: self.dim])
        return Reading.of(toward_tokens(query[None], of_key, self.heads), y, y, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        of_value, bias = self.qkv.weight[-self.dim :], self.qkv.bias[-self.dim :]
        out = self.proj(of_heads(self.reading(tokens).found(self), of_value, bias)[:, 0])
        z = self.token + self.scale1 * out
        return self.norm(z + self.scale2 * self.feed_forward(self.norm2(z)))
