"""Sequences cut into pieces that end where chunks end, each row at its own place within its chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """Tokens [batch, n] as [batch, pieces, width]: piece ``p`` of a row holds those in the ``p``-th chunk it enters.

    Rows need not stand at the same place of a chunk, nor have equally many tokens; tokens fill the front of a piece.

    Example:
        >>> pieces = Pieces.of(torch.tensor([3, 0]), torch.tensor([4, 5]), n=5, period=4)
        >>> pieces.split(torch.arange(1, 6).expand(2, 5)).tolist()
        [[[1, 0, 0, 0], [2, 3, 4, 0]], [[1, 2, 3, 4], [5, 0, 0, 0]]]
        >>> pieces.lengths.tolist(), pieces.completes.tolist()
        ([[1, 3], [4, 1]], [[True, False], [True, False]])
    """

    index: Int[Tensor, "batch places"] | None
    """Which token stands at each place of each piece, arbitrary where none does; None if they stand one after the
    other."""
    back: Int[Tensor, "batch n"] | None
    """At which place each token stands."""
    lengths: Int[Tensor, "batch pieces"]
    """Tokens of each piece."""
    completes: Bool[Tensor, "batch pieces"]
    """Whether a piece has tokens and the last of them is the last of its chunk."""
    n: int
    width: int
    ragged: bool
    """Whether places without a token may hold one all the same."""

    @classmethod
    def of(cls, place: Int[Tensor, " batch"], lengths: Int[Tensor, " batch"] | None, *, n: int, period: int) -> Self:
        """``place`` is where in its chunk of ``period`` tokens each row goes on; ``lengths`` counts its tokens, None
        for ``n`` of every row."""
        nearest, farthest = (int(place.min()), int(place.max())) if place.numel() else (0, 0)
        count, width = -(-(farthest + n) // period), min(n, period)
        ends = torch.full_like(place, n) if lengths is None else lengths.to(place.device)
        start = torch.arange(count, device=place.device) * period - place[:, None]
        first, stop = start.clamp(min=0), (start + period).clamp(max=ends[:, None])
        sizes = (stop - first).clamp(min=0)
        completes = (sizes > 0) & (stop == start + period)
        index = back = None
        if count > 1 and (nearest or farthest):
            index = first[..., None] + torch.arange(width, device=place.device)
            index = index.flatten(1).clamp(max=n - 1)
            tokens = torch.arange(n, device=place.device)
            piece = (place[:, None] + tokens) // period
            back = piece * width + tokens - first.gather(1, piece)
        return cls(index, back, sizes, completes, n, width, index is not None or lengths is not None)

    @property
    def count(self) -> int:
        return self.lengths.shape[1]

    @property
    def live(self) -> Bool[Tensor, "batch pieces width"]:
        """Which places hold a token."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[..., None]

    def split(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch pieces width *rest"]:
        """Zero where there is no token."""
        batch, _, *rest = tokens.shape
        if self.index is None:
            missing = self.count * self.width - self.n
            placed = torch.cat((tokens, tokens.new_zeros(batch, missing, *rest)), dim=1) if missing else tokens
        else:
            placed = tokens.gather(1, self.index.reshape(*self.index.shape, *[1] * len(rest)).expand(-1, -1, *rest))
        split = placed.reshape(batch, self.count, self.width, *rest)
        if not self.ragged:
            return split
        live = self.live
        return split.masked_fill(~live.reshape(*live.shape, *[1] * len(rest)), 0)

    def join(self, pieces: Shaped[Tensor, "batch pieces width *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        """The tokens in their order again; arbitrary after the true tokens of a row."""
        flat, rest = pieces.flatten(1, 2), pieces.shape[3:]
        if self.back is None:
            return flat[:, : self.n]
        return flat.gather(1, self.back.reshape(*self.back.shape, *[1] * len(rest)).expand(-1, -1, *rest))
