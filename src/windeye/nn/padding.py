"""Padding on any side, as padding on the right: real tokens move to the front, in order, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """A batch whose padding may stand anywhere, seen as one whose padding stands on the right.

    Everything that is causal and skips padding gives the same numbers on both; only this file knows about sides.

    Example:
        >>> alignment = Alignment.of(torch.tensor([[True, False, False]]))
        >>> alignment.lengths, alignment.to_front(torch.tensor([[9, 5, 6]]))
        (tensor([2]), tensor([[5, 6, 9]]))
        >>> alignment.back(torch.tensor([[5.0, 6.0, 1.0]]))
        tensor([[0., 5., 6.]])
    """

    order: Int[Tensor, "batch n"]
    lengths: Int[Tensor, " batch"]
    padding: Bool[Tensor, "batch n"]

    @classmethod
    def of(cls, padding: Bool[Tensor, "batch n"]) -> Self:
        """``padding`` is True where there is no token."""
        return cls(padding.to(torch.int8).argsort(dim=1, stable=True), (~padding).sum(dim=1), padding)

    def to_front(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        return tokens.gather(1, _like(self.order, tokens))

    def back(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        """To where the tokens came from; rows of padding are zero."""
        tokens = tokens.gather(1, _like(self.order.argsort(dim=1), tokens))
        return tokens.masked_fill(_like(self.padding, tokens), 0)


def blank_after(
    tokens: Shaped[Tensor, "batch n *rest"], lengths: Int[Tensor, " batch"]
) -> Shaped[Tensor, "batch n *rest"]:
    """Zeros in the place of everything after the first ``lengths`` tokens of each row."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.masked_fill(_like(places >= lengths[:, None].to(tokens.device), tokens), 0)


def check_padding(padding: Tensor | None, lengths: Tensor | None, batch: int, n: int) -> None:
    """Refuse what does not describe the padding of [batch, n] tokens.

    Raises:
        ValueError, TypeError: both are given, a wrong shape or a wrong type.
    """
    if padding is not None and lengths is not None:
        raise ValueError("padding and lengths say the same thing; give one of the two")
    if padding is not None:
        if padding.dtype != torch.bool:
            raise TypeError(f"padding must be boolean, True where there is no token, got {padding.dtype}")
        if padding.shape != (batch, n):
            raise ValueError(f"padding must be [batch {batch}, tokens {n}], got shape {tuple(padding.shape)}")
    if lengths is not None and lengths.shape != (batch,):
        raise ValueError(f"lengths must be [batch {batch}], got shape {tuple(lengths.shape)}")


def _like(rows: Tensor, tokens: Tensor) -> Tensor:
    """[batch, n] spread over the other axes of ``tokens``."""
    return rows.reshape(*rows.shape, *[1] * (tokens.dim() - 2)).expand_as(tokens)
