"""The attentive pool of AIM: batch-normalised tokens as keys and values, a learned query in many heads."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.pools.efficient import QUERY_STD
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads, toward_tokens
from windeye.nn.pools.tokens import Tokens, batch_normed


@token_pool("aim")
class AimPool(TokenPool):
    """``concat_h softmax(u_h (n Wk^T)_h^T / sqrt(head_dim)) (n Wv^T)_h`` with ``n`` the tokens behind a batch norm
    without weights, whose statistics run over batch and tokens.

    Source: efficient-probing spec; equal to the official module, see tests/models/probing/test_golden_heads.py.

    Example:
        >>> pool = AimPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 1180416)
    """

    attention_site = True

    def __init__(self, dim: int, heads: int = 16) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim")
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.query = nn.Parameter(torch.randn(1, dim) * QUERY_STD)
        self.norm = nn.BatchNorm1d(dim, eps=1e-6, affine=False)

    def reading(self, tokens: Tokens) -> Reading:
        asked = toward_tokens(self.query[None], self.key.weight, self.heads)
        normed = batch_normed(self.norm, tokens)
        return Reading.of(asked, normed, normed, self.head_dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return of_heads(self.reading(tokens).found(self), self.value.weight)[:, 0]
