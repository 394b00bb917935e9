"""Attention-based multiple-instance pooling: a small network scores each token."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.self_attention import SelfAttention
from windeye.nn.pools.tokens import Tokens


@token_pool("abmilp")
class AbmilpPool(TokenPool):
    """``sum_i softmax_i(w tanh(W y_i)) y_i`` over tokens ``y`` that attended to each other in one head.

    Scores and pooled values both come from the attended tokens, as in the published comparison.

    Args:
        dim: channels of the tokens.
        attention: whether tokens attend to each other first; without, ``y`` is what comes in.

    Source: efficient-probing spec; equal to the official module, see tests/nn/pools/test_golden.py.

    Example:
        >>> pool = AbmilpPool(768)
        >>> pool(torch.randn(1, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([1, 768]), 2951425)
    """

    def __init__(self, dim: int, *, attention: bool = True) -> None:
        super().__init__(dim)
        self.attention = SelfAttention(dim, heads=1) if attention else None
        self.hidden = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def attended(self, tokens: Tokens) -> Tokens:
        """The tokens that are scored and pooled."""
        return tokens if self.attention is None else replace(tokens, x=self.attention(tokens))

    def weights(self, tokens: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        return self._weights(self.attended(tokens))

    def _weights(self, tokens: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        scores = self.score(self.hidden(tokens.x).tanh()).transpose(1, 2)
        exact = scores if scores.dtype == torch.float64 else scores.float()
        if tokens.padding is not None:
            exact = exact.masked_fill(tokens.padding[:, None], torch.finfo(exact.dtype).min)
        return exact.softmax(dim=2).to(scores.dtype)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        tokens = self.attended(tokens)
        return (self._weights(tokens) @ tokens.x)[:, 0]
