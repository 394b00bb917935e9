"""The spatial attention of DOLG: a positive score weighs each normalised token."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.tokens import Tokens, batch_normed


@token_pool("dolg")
class DolgPool(TokenPool):
    """``mean(softplus(w relu(y)) y / |y|)`` with ``y = norm(W x)``, a batch norm over batch and tokens.

    Its maps are the scores, which are positive and need not add up to one.

    Source: efficient-probing spec.

    Example:
        >>> import torch
        >>> pool = DolgPool(768)
        >>> pool(torch.randn(2, 196, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 592897)
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.BatchNorm1d(dim)
        self.score = nn.Linear(dim, 1)
        for layer in (self.proj, self.score):
            nn.init.normal_(layer.weight, std=(2 / layer.out_features) ** 0.5)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        y = self._projected(tokens)
        return Tokens(self._scores(y).transpose(1, 2) * F.normalize(y, dim=2), tokens.padding).mean()

    def weights(self, tokens: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        scores = self._scores(self._projected(tokens))
        return scores if tokens.padding is None else scores.masked_fill(tokens.padding[:, None], 0.0)

    def _projected(self, tokens: Tokens) -> Float[Tensor, "batch tokens dim"]:
        return batch_normed(self.norm, Tokens(self.proj(tokens.x), tokens.padding))

    def _scores(self, y: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch 1 tokens"]:
        return F.softplus(self.score(y.relu())).transpose(1, 2)
