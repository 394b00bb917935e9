"""Which tokens a chunk holds and which chunks a sequence holds, as tables that every kernel reads.

Batches, packed sequences and padded ones differ in these tables only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch

Sequence = tuple[int, int, int]
"""Batch entry, first token, end."""


@dataclass(frozen=True)
class Chunks:
    """Tables of one call, int32.

    Example:
        >>> chunks = tables(((0, 0, 70), (0, 70, 70), (0, 70, 100)), size=32, device=torch.device("cpu"))
        >>> chunks.chunk.tolist()  # batch entry, first token, tokens
        [[0, 0, 32], [0, 32, 32], [0, 64, 6], [0, 70, 30]]
        >>> chunks.of_sequence.tolist()
        [0, 3, 3, 4]
    """

    chunk: torch.Tensor
    """[chunks, 3]: batch entry, first token, tokens."""
    of_sequence: torch.Tensor
    """[sequences + 1]: the chunks of a sequence are those from its entry up to the next."""

    @property
    def count(self) -> int:
        return self.chunk.shape[0]


def chunks_of(
    batch: int,
    tokens: int,
    size: int,
    device: torch.device,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> Chunks:
    """Tables of a call with sequences cut every ``size`` tokens."""
    if cu_seqlens is not None:
        sequences = tuple((0, start, stop) for start, stop in pairwise(cu_seqlens.tolist()))
    else:
        stops = [tokens] * batch if lengths is None else lengths.tolist()
        sequences = tuple((entry, 0, stop) for entry, stop in enumerate(stops))
    return tables(sequences, size, device)


@lru_cache(maxsize=64)
def tables(sequences: tuple[Sequence, ...], size: int, device: torch.device) -> Chunks:
    """Kept, as all layers of a model ask for the same ones and each copy to a GPU makes it wait."""
    chunk, of_sequence = [], [0]
    for entry, start, stop in sequences:
        chunk += [(entry, first, min(size, stop - first)) for first in range(start, stop, size)]
        of_sequence.append(len(chunk))
    return Chunks(
        torch.tensor(chunk, dtype=torch.int32).reshape(-1, 3).to(device),
        torch.tensor(of_sequence, dtype=torch.int32).to(device),
    )
