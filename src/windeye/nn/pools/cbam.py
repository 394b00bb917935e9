"""CBAM: channels are gated by what the whole map says, places by what lies around them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.tokens import Tokens, batch_normed

SHRINKS = 16
"""How many times fewer channels lie between the two maps of the channel gate."""


@token_pool("cbam")
class CbamPool(TokenPool):
    """``mean(relu(x + p c x))`` with gates ``c = sigmoid(m(mean(x)) + m(max(x)))`` of channels, ``m`` two linear maps
    around a ReLU, and ``p = sigmoid(norm(conv([mean; max])))`` of places, over the mean and the maximum of each token's
    gated channels, ``conv`` 7 x 7 with zeros around the map.

    The only pool to which it matters which tokens are neighbours. A row of tokens is taken as a square. Its maps are
    the gates of places, which need not add up to one. Padding is as if the map ended there.

    Source: efficient-probing spec.

    Example:
        >>> pool = CbamPool(768)
        >>> pool(torch.randn(2, 14, 14, 768)).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), 73828)
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        inner = max(1, int(dim / SHRINKS + 0.5))
        self.shrink = nn.Linear(dim, inner, bias=False)
        self.grow = nn.Linear(inner, dim, bias=False)
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm1d(1)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        gated = self._gated(tokens)
        places = self._places(gated).transpose(1, 2)
        return Tokens((tokens.x + places * gated.x).relu(), tokens.padding).mean()

    def weights(self, tokens: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        return self._places(self._gated(tokens))

    def _gated(self, tokens: Tokens) -> Tokens:
        """Tokens whose channels are gated."""
        mean, maximum = (self.grow(self.shrink(t).relu()) for t in (tokens.mean(), tokens.maximum()))
        return Tokens(tokens.x * (mean + maximum).sigmoid()[:, None], tokens.padding, tokens.square())

    def _places(self, gated: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        said = torch.stack([gated.x.mean(dim=2), gated.x.amax(dim=2)], dim=1)
        if gated.padding is not None:
            said = said.masked_fill(gated.padding[:, None], 0.0)
        around = self.conv(torch.unflatten(said, 2, gated.square())).flatten(2).transpose(1, 2)
        gates = batch_normed(self.norm, Tokens(around, gated.padding)).sigmoid().transpose(1, 2)
        return gates if gated.padding is None else gates.masked_fill(gated.padding[:, None], 0.0)
