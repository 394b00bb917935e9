"""What a pool reads: the tokens of each batch entry in a row, which of them are padding, and the map they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens as rows, whatever layout they came in."""

    x: Float[Tensor, "batch tokens dim"]
    padding: Bool[Tensor, "batch tokens"] | None = None
    """True where there is no token."""
    grid: tuple[int, int] | None = None
    """Rows and columns, where the tokens came as a map."""

    @classmethod
    def of(cls, x: Tensor, padding: Tensor | None, dim: int, *, channels_first: bool = False) -> Tokens:
        """
        Raises:
            ValueError: another number of axes or channels, no token, or padding of another shape.
            TypeError: padding that is not bool.
        """
        if channels_first and x.dim() == 4:
            x = x.permute(0, 2, 3, 1)
        if x.dim() not in (3, 4) or x.shape[-1] != dim:
            raise ValueError(
                f"x must be [batch, tokens, dim {dim}] or [batch, height, width, dim {dim}], got shape {tuple(x.shape)}"
                + (" with channels moved last" if channels_first else "")
            )
        if 0 in x.shape[1:-1]:
            raise ValueError(f"x must hold at least one token, got shape {tuple(x.shape)}")
        if padding is not None:
            if padding.dtype is not torch.bool:
                raise TypeError(f"padding must be bool, True where there is no token, got {padding.dtype}")
            if padding.shape != x.shape[:-1]:
                raise ValueError(f"padding must be {list(x.shape[:-1])} as x, got shape {tuple(padding.shape)}")
            # Whatever stands there, NaN too, meets weights of zero later.
            x, padding = x.masked_fill(padding[..., None], 0.0), padding.flatten(1)
        grid = (x.shape[1], x.shape[2]) if x.dim() == 4 else None
        return cls(x.flatten(1, -2), padding, grid)

    def mean(self) -> Float[Tensor, "batch dim"]:
        """The mean token of each batch entry."""
        if self.padding is None:
            return self.x.mean(dim=1)
        here = ~self.padding[..., None]
        return (self.x * here).sum(dim=1) / here.sum(dim=1).clamp(min=1)

    def maximum(self) -> Float[Tensor, "batch dim"]:
        """The largest value of each channel."""
        if self.padding is None:
            return self.x.amax(dim=1)
        return self.x.masked_fill(self.padding[..., None], float("-inf")).amax(dim=1)

    def square(self) -> tuple[int, int]:
        """The map that the tokens lie on; that of a row of tokens is a square.

        Raises:
            ValueError: a row of tokens that fill no square.
        """
        if self.grid is not None:
            return self.grid
        count = self.x.shape[1]
        side = round(count**0.5)
        if side * side != count:
            raise ValueError(f"{count} tokens fill no square; hand them over as [batch, height, width, dim]")
        return side, side


def batch_normed(norm: nn.BatchNorm1d, tokens: Tokens) -> Float[Tensor, "batch tokens dim"]:
    """Tokens through a batch norm whose statistics run over all that are no padding; padding becomes zero."""
    x = tokens.x
    if tokens.padding is None:
        return norm(x.flatten(0, 1)).view_as(x)
    here = ~tokens.padding
    out = x.new_zeros(x.shape)
    out[here] = norm(x[here])
    return out
