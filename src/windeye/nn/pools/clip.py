"""The attention pool of CLIP: the mean token asks, among tokens that know their places."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("clip")
class ClipPool(TokenPool):
    """Self-attention over the mean token and the tokens, positions added to all of them, of which the mean token's
    output is kept: ``y = [mean(norm(x)); norm(x)] + p``, the query is ``y_0``.

    The mean token is a key, too; maps are the weights of the tokens.

    Args:
        dim, heads: channels, and heads that share them.
        tokens: how many tokens there are: positions are learned for each.

    Source: efficient-probing spec.

    Example:
        >>> pool = ClipPool(768)
        >>> pool(torch.randn(2, 14, 14, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 2515200)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 4, *, tokens: int = 196) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.positions = nn.Parameter(torch.empty(check_count("tokens", tokens) + 1, dim))
        self.norm = nn.LayerNorm(dim, 1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        for weight in (self.positions, self.qkv.weight):
            nn.init.trunc_normal_(weight, std=dim**-0.5)
        nn.init.zeros_(self.qkv.bias)

    def reading(self, tokens: Tokens) -> Reading:
        count = self.positions.shape[0] - 1
        if tokens.x.shape[1] != count:
            raise ValueError(
                f"this pool has positions for {count} tokens, got {tokens.x.shape[1]}; build it with tokens="
                f"{tokens.x.shape[1]}"
            )
        normed = Tokens(self.norm(tokens.x), tokens.padding)
        y = torch.cat([normed.mean()[:, None], normed.x], dim=1) + self.positions
        of_query, of_key, _ = self.qkv.weight.chunk(3)
        query = nn.functional.linear(y[:, :1], of_query, self.qkv.bias[: self.dim])
        return Reading.of(toward_tokens(query, of_key, self.heads), y, y, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        of_value, bias = self.qkv.weight[-self.dim :], self.qkv.bias[-self.dim :]
        return self.proj(of_heads(self.reading(tokens).found(self), of_value, bias)[:, 0])
