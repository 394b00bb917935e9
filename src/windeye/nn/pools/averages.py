"""Pools without a weight: mean, class token, mean and maximum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.tokens import Tokens


@token_pool("average")
class AveragePool(TokenPool):
    """The mean token.

    Example:
        >>> AveragePool(1)(torch.tensor([[[1.0], [3.0]]]))
        tensor([[2.]])
    """

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        return tokens.mean()

    def weights(self, tokens: Tokens) -> Float[Tensor, "batch 1 tokens"]:
        if tokens.padding is None:
            return tokens.x.new_full((tokens.x.shape[0], 1, tokens.x.shape[1]), 1 / tokens.x.shape[1])
        here = (~tokens.padding[:, None]).to(tokens.x.dtype)
        return here / here.sum(dim=2, keepdim=True).clamp(min=1)


@token_pool("class_token")
class ClassTokenPool(TokenPool):
    """The first token, which an encoder made for this.

    Raises:
        ValueError: the tokens are a map, which has no class token.

    Example:
        >>> ClassTokenPool(1)(torch.tensor([[[1.0], [3.0]]]))
        tensor([[1.]])
    """

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        if tokens.grid is not None:
            raise ValueError(f"a map of {tokens.grid[0]} x {tokens.grid[1]} tokens has no class token")
        return tokens.x[:, 0]


@token_pool("mean_max")
class MeanMaxPool(TokenPool):
    """The mean token beside the largest value of each channel, ``2 dim`` channels.

    Example:
        >>> MeanMaxPool(1)(torch.tensor([[[1.0], [3.0]]]))
        tensor([[2., 3.]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * dim)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch 2*dim"]:
        return torch.cat([tokens.mean(), tokens.maximum()], dim=1)
