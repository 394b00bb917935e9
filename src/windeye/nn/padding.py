"""Sequences of different lengths, as rows whose padding stands on the right: tokens move to the front, and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


class Layout(Protocol):
    """How a caller lays out sequences. Everything that is causal and skips padding gives the same numbers on rows that
    begin at their first token; only this file knows of other layouts."""

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each row that `to_front` gives, int [rows]; None: rows have no padding."""
        ...

    def to_front(self, tokens: Tensor) -> Tensor:
        """One row per sequence, its first token first, padding on the right."""
        ...

    def back(self, tokens: Tensor) -> Tensor:
        """To where the tokens came from; places of padding are zero."""
        ...


@dataclass(frozen=True)
class Trailing:
    """A batch whose padding stands on the right already."""

    lengths: Int[Tensor, " batch"] | None = None

    def to_front(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        return tokens

    def back(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        if self.lengths is None:
            return tokens
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return tokens.masked_fill(_like(places >= self.lengths[:, None].to(tokens.device), tokens), 0)


@dataclass(frozen=True)
class Alignment:
    """A batch whose padding may stand anywhere.

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
        tokens = tokens.gather(1, _like(self.order.argsort(dim=1), tokens))
        return tokens.masked_fill(_like(self.padding, tokens), 0)


@dataclass(frozen=True)
class Packing:
    """Documents one after the other in a single row; each becomes a row, as long as the longest.

    Example:
        >>> packing = Packing.of(torch.tensor([0, 3, 3, 4]))
        >>> packing.lengths, packing.to_front(torch.tensor([[5, 6, 7, 8]]))
        (tensor([3, 0, 1]), tensor([[5, 6, 7],
                [0, 0, 0],
                [8, 0, 0]]))
        >>> packing.back(torch.tensor([[1, 2, 3], [0, 0, 0], [4, 0, 0]]))
        tensor([[1, 2, 3, 4]])
    """

    lengths: Int[Tensor, " documents"]
    longest: int
    place: Int[Tensor, " total"]
    """Where each token stands in the rows laid one after the other."""

    @classmethod
    def of(cls, cu_seqlens: Int[Tensor, " bounds"]) -> Self:
        """``cu_seqlens`` are rising bounds ``0 .. total``, one more than there are documents."""
        bounds = cu_seqlens.long()
        lengths = bounds.diff()
        longest = int(lengths.max())
        document = torch.arange(len(lengths), device=bounds.device).repeat_interleave(lengths)
        total = torch.arange(len(document), device=bounds.device)
        return cls(lengths, longest, total - bounds[document] + document * longest)

    def to_front(self, tokens: Shaped[Tensor, "1 total *rest"]) -> Shaped[Tensor, "documents longest *rest"]:
        rows = tokens.new_zeros(len(self.lengths) * self.longest, *tokens.shape[2:])
        return rows.index_copy(0, self.place, tokens[0]).view(len(self.lengths), self.longest, *tokens.shape[2:])

    def back(self, tokens: Shaped[Tensor, "documents longest *rest"]) -> Shaped[Tensor, "1 total *rest"]:
        return tokens.flatten(0, 1).index_select(0, self.place)[None]


def layout_of(
    tokens: Shaped[Tensor, "batch n *rest"],
    padding: Tensor | None = None,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Layout:
    """What the arguments of a mixer or a model say about where its sequences stand.

    Raises:
        ValueError, TypeError: more than one is given, a wrong shape, a wrong type, or bounds that do not rise.
    """
    batch, n = tokens.shape[:2]
    if padding is not None and lengths is not None:
        raise ValueError("padding and lengths say the same thing; give one of the two")
    if cu_seqlens is not None:
        if padding is not None or lengths is not None:
            raise ValueError(
                f"cu_seqlens packs documents and {'lengths' if padding is None else 'padding'} pads them; give one of "
                f"the two"
            )
        _check_bounds(cu_seqlens, batch, n)
        return Packing.of(cu_seqlens.to(tokens.device))
    if padding is not None:
        if padding.dtype != torch.bool:
            raise TypeError(f"padding must be boolean, True where there is no token, got {padding.dtype}")
        if padding.shape != (batch, n):
            raise ValueError(f"padding must be [batch {batch}, tokens {n}], got shape {tuple(padding.shape)}")
        return Alignment.of(padding)
    if lengths is not None and lengths.shape != (batch,):
        raise ValueError(f"lengths must be [batch {batch}], got shape {tuple(lengths.shape)}")
    return Trailing(lengths)


def _check_bounds(cu_seqlens: Tensor, batch: int, n: int) -> None:
    if cu_seqlens.is_floating_point() or cu_seqlens.dtype == torch.bool:
        raise TypeError(f"cu_seqlens must be integers, got {cu_seqlens.dtype}")
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2:
        raise ValueError(f"cu_seqlens must be [documents + 1], got shape {tuple(cu_seqlens.shape)}")
    if batch != 1:
        raise ValueError(f"cu_seqlens needs batch 1, got batch {batch}; lay the documents one after the other")
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != n or any(a > b for a, b in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must rise from 0 to the number of tokens {n}, got {bounds}")


def _like(rows: Tensor, tokens: Tensor) -> Tensor:
    """[batch, n] spread over the other axes of ``tokens``."""
    return rows.reshape(*rows.shape, *[1] * (tokens.dim() - 2)).expand_as(tokens)
