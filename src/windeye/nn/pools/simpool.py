"""SimPool: the mean token asks, tokens themselves are what is pooled."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, toward_tokens
from windeye.nn.pools.tokens import Tokens

EPS = 1e-6


@token_pool("simpool")
class SimPool(TokenPool):
    """``softmax(q k^T / sqrt(dim)) n`` of one head, with ``n = norm(x)``, ``q = mean(x) Wq^T`` and ``k = n Wk^T``.

    The mean is that of the tokens before the norm.

    Source: efficient-probing spec; equal to the official module, whose batch of one loses its axis.

    Example:
        >>> import torch
        >>> SimPool(768)(torch.randn(1, 196, 768)).shape
        torch.Size([1, 768])
    """

    attention_site = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim, EPS)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)

    def reading(self, tokens: Tokens) -> Reading:
        normed = self.norm(tokens.x)
        asked = toward_tokens(self.query(tokens.mean())[:, None], self.key.weight, heads=1)
        return Reading.of(asked, normed, normed, self.dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return self.reading(tokens).found(self)[:, 0, 0]


@token_pool("esimpool")
class PlainSimPool(TokenPool):
    """SimPool without linear maps: ``softmax(q_h k_h^T / sqrt(head_dim)) x_h`` with ``q = norm(mean(x))`` and
    ``k = norm(x)``.

    Values are the tokens before the norm.

    Source: efficient-probing spec.

    Example:
        >>> import torch
        >>> pool = PlainSimPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 1536)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 12) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.norm = nn.LayerNorm(dim, EPS)

    def reading(self, tokens: Tokens) -> Reading:
        asks, seen = self.norm(tokens.mean())[:, None], self.norm(tokens.x)
        query, key, value = (t.unflatten(-1, (self.heads, -1)) for t in (asks, seen, tokens.x))
        return Reading(query, key, value, self.head_dim**-0.5, tokens.padding)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return self.reading(tokens).found(self).flatten(1)
