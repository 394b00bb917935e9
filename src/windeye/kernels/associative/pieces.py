"""Sequences cut into pieces that end where chunks end, each row at its own place within its chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

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

    index: Int[Tensor, "batch places"]
    """Which token stands at each place of each piece; arbitrary where none does."""
    back: Int[Tensor, "batch n"]
    """At which place each token stands."""
    lengths: Int[Tensor, "batch pieces"]
    """Tokens of each piece."""
    completes: Bool[Tensor, "batch pieces"]
    """Whether a piece has tokens and the last of them is the last of its chunk."""
    width: int

    @classmethod
    def of(
        cls,
        place: Int[Tensor, " batch"] | None,
        lengths: Int[Tensor, " batch"] | None,
        *,
        n: int,
        period: int,
        batch: int = 1,
        device: torch.device | None = None,
    ) -> Self:
        """``place`` is where in its chunk of ``period`` tokens each row goes on, None at the beginning of one;
        ``lengths`` counts its tokens, None for ``n`` of every row."""
        if place is None:
            place = torch.zeros(batch, dtype=torch.int64, device=device)
        if lengths is None:
            lengths = torch.full_like(place, n)
        farthest = int(place.max()) if place.numel() else 0
        count, width = -(-(farthest + n) // period), min(n, period)
        start = torch.arange(count, device=place.device) * period - place[:, None]
        first = start.clamp(min=0)
        stop = (start + period).clamp(max=lengths[:, None].to(place.device))
        sizes = (stop - first).clamp(min=0)
        index = first[..., None] + torch.arange(width, device=place.device)
        tokens = torch.arange(n, device=place.device)
        piece = (place[:, None] + tokens) // period
        back = piece * width + tokens - first.gather(1, piece)
        completes = (sizes > 0) & (stop == start + period)
        return cls(index.flatten(1).clamp(max=max(n - 1, 0)), back, sizes, completes, width)

    @property
    def count(self) -> int:
        return self.lengths.shape[1]

    @property
    def completing(self) -> list[Literal["all", "some", "none"]]:
        """Which rows complete a chunk with each piece."""
        full = self.completes.sum(0).tolist()
        rows = self.completes.shape[0]
        return ["all" if count == rows else "some" if count else "none" for count in full]

    @property
    def live(self) -> Bool[Tensor, "batch pieces width"]:
        """Which places hold a token."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[..., None]

    def split(self, tokens: Shaped[Tensor, "batch n *rest"]) -> Shaped[Tensor, "batch pieces width *rest"]:
        """Zero where there is no token."""
        rest = tokens.shape[2:]
        index = self.index.reshape(*self.index.shape, *[1] * len(rest)).expand(-1, -1, *rest)
        split = tokens.gather(1, index).reshape(tokens.shape[0], self.count, self.width, *rest)
        live = self.live
        return split.masked_fill(~live.reshape(*live.shape, *[1] * len(rest)), 0)

    def join(self, pieces: Shaped[Tensor, "batch pieces width *rest"]) -> Shaped[Tensor, "batch n *rest"]:
        """The tokens in their order again; arbitrary after the true tokens of a row."""
        rest = pieces.shape[3:]
        index = self.back.reshape(*self.back.shape, *[1] * len(rest)).expand(-1, -1, *rest)
        return pieces.flatten(1, 2).gather(1, index)
