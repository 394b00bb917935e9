"""Multi-head cross-attention of one learned query: the textbook of attentive pooling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.efficient import QUERY_STD
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens


@token_pool("cross_attention")
class CrossAttentionPool(TokenPool):
    """``concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h`` with ``q = u Wq^T, k = x Wk^T, v = x Wv^T`` and one learned
    token ``u``; then ``Wo``, unless it is left out.

    Without ``Wo`` it is `EfficientPool` with ``heads`` queries ``u_h = sqrt(dim / head_dim) q_h Wk_h``. Keys and values
    are never made of all tokens (see `windeye.nn.pools.reading`).

    Args:
        dim, heads: channels, and heads that share them.
        query_proj: whether ``u`` goes through ``Wq``; without, it is the query.
        out_proj: whether ``Wo`` follows.
        bias: whether the maps have biases.

    Example:
        >>> pool = CrossAttentionPool(768, heads=12, out_proj=False)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 1770240)
    """

    attention_site = True

    def __init__(
        self, dim: int, heads: int = 12, *, query_proj: bool = True, out_proj: bool = True, bias: bool = False
    ) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.query = nn.Parameter(torch.randn(1, dim) * QUERY_STD)
        self.query_proj = nn.Linear(dim, dim, bias=bias) if query_proj else None
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim, bias=bias) if out_proj else None

    def reading(self, tokens: Tokens) -> Reading:
        query = self.query if self.query_proj is None else self.query_proj(self.query)
        asked = toward_tokens(query[None], self.kv_proj.weight[: self.dim], self.heads)
        return Reading.of(asked, tokens.x, tokens.x, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        bias = None if self.kv_proj.bias is None else self.kv_proj.bias[self.dim :]
        out = of_heads(self.reading(tokens).found(self), self.kv_proj.weight[self.dim :], bias)[:, 0]
        return out if self.out_proj is None else self.out_proj(out)

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}"
