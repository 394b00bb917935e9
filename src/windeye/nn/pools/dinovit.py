"""A whole block of a vision transformer on top of the encoder, then the mean."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixer import check_count
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.self_attention import SelfAttention
from windeye.nn.pools.tokens import Tokens


@token_pool("dinovit")
class DinoVitPool(TokenPool):
    """The mean token of ``z + feed_forward(norm2(z))`` with ``z = x + attention(norm1(x))``, all attending to all.

    Source: efficient-probing spec; the official files hold no class token, and its code takes the mean.

    Example:
        >>> import torch
        >>> pool = DinoVitPool(768)
        >>> pool(torch.randn(1, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([1, 768]), 7085568)
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, check_count("heads", heads))
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        z = tokens.x + self.attention(replace(tokens, x=self.norm1(tokens.x)))
        return replace(tokens, x=z + self.feed_forward(self.norm2(z))).mean()
