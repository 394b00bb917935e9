"""The attention pool of SigLIP: a latent asks in many heads, and a feed-forward part follows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("siglip")
class SiglipPool(TokenPool):
    """``z + feed_forward(z)`` with ``z = proj(attention(latent, x))``; no norm.

    Source: efficient-probing spec.

    Example:
        >>> pool = SiglipPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 7085568)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.latent = nn.Parameter(torch.empty(1, dim))
        nn.init.trunc_normal_(self.latent, std=dim**-0.5)
        self.query = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.feed_forward = FeedForward(dim, 4 * dim)

    def reading(self, tokens: Tokens) -> Reading:
        asked = toward_tokens(self.query(self.latent)[None], self.kv.weight[: self.dim], self.heads)
        return Reading.of(asked, tokens.x, tokens.x, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        found = self.reading(tokens).found(self)
        z = self.proj(of_heads(found, self.kv.weight[self.dim :], self.kv.bias[self.dim :])[:, 0])
        return z + self.feed_forward(z)
