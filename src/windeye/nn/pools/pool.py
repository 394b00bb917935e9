"""What every pool is: many tokens in, one vector out, and where it looked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.pools.reading import Reading
from windeye.nn.pools.tokens import Tokens


class TokenPool(nn.Module, ABC):
    """Makes one vector of all tokens of a batch entry: [batch, tokens, dim] or [batch, height, width, dim] to
    [batch, out_dim].

    A subclass writes `pool`. One whose attention is a few queries over the tokens writes `reading` for it and gets
    `maps`; with ``attention_site = True`` sessions of `windeye.sites` see that call. One whose weights come about
    otherwise writes `weights`.

    The contract, which tests/nn/pools checks for every registered pool: padding changes nothing; batch entries are
    independent in evaluation mode; a map and the row of its tokens are the same; weights of maps are those that make
    the output.
    """

    kind: ClassVar[str]

    def __init__(self, dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        self.out_dim = dim if out_dim is None else out_dim

    @abstractmethod
    def pool(self, tokens: Tokens) -> Float[Tensor, "batch out_dim"]:
        """The vector of each batch entry."""

    def reading(self, tokens: Tokens) -> Reading | None:
        """The pool's attention over the tokens, where it is that of a few queries."""
        del tokens
        return None

    def weights(self, tokens: Tokens) -> Float[Tensor, "batch maps tokens"]:
        """Where the pool looks.

        Raises:
            ValueError: the pool does not weigh tokens.
        """
        reading = self.reading(tokens)
        if reading is None:
            raise ValueError(f"{type(self).__name__} does not weigh tokens, so it has no maps")
        return reading.maps()

    @property
    def has_maps(self) -> bool:
        """Whether the pool weighs tokens."""
        return type(self).reading is not TokenPool.reading or type(self).weights is not TokenPool.weights

    def forward(
        self,
        x: Float[Tensor, "batch *grid dim"],
        padding: Bool[Tensor, "batch *grid"] | None = None,
        *,
        channels_first: bool = False,
    ) -> Float[Tensor, "batch out_dim"]:
        """
        Args:
            x: tokens, [batch, tokens, dim] or [batch, height, width, dim].
            padding: True where there is no token; a batch entry has at least one.
            channels_first: whether a map is [batch, dim, height, width].

        Raises:
            ValueError, TypeError: shapes do not fit, or there is no token.
        """
        return self.pool(Tokens.of(x, padding, self.dim, channels_first=channels_first))

    def maps(
        self,
        x: Float[Tensor, "batch *grid dim"],
        padding: Bool[Tensor, "batch *grid"] | None = None,
        *,
        channels_first: bool = False,
    ) -> Float[Tensor, "batch maps *grid"]:
        """Where each query or head looks: its weights on the tokens, on their grid. Arguments as of `forward`.

        Raises:
            ValueError: the pool does not weigh tokens.
        """
        tokens = Tokens.of(x, padding, self.dim, channels_first=channels_first)
        weights = self.weights(tokens)
        return weights if tokens.grid is None else torch.unflatten(weights, 2, tokens.grid)

    def extra_repr(self) -> str:
        return str(self.dim)


POOLS: dict[str, type[TokenPool]] = {}
"""Every registered pool by its name."""


def token_pool(kind: str) -> Any:
    """Register a pool under a name. Its constructor takes ``dim``; its other arguments have defaults.

    Raises:
        ValueError: the name is taken.
    """

    def register(pool: type[TokenPool]) -> type[TokenPool]:
        if kind in POOLS:
            raise ValueError(f"pool {kind!r} is registered twice")
        pool.kind = kind
        POOLS[kind] = pool
        return pool

    return register


def create_pool(kind: str, dim: int, **settings: Any) -> TokenPool:
    """A pool by its name.

    Raises:
        ValueError: an unknown name, or settings that do not fit. TypeError: a setting that the pool does not have.

    Example:
        >>> create_pool("ep", 48, queries=6).out_dim
        48
    """
    if kind not in POOLS:
        raise ValueError(f"unknown pool {kind!r}; known are {', '.join(POOLS)}")
    return POOLS[kind](dim, **settings)
