"""What every state between steps offers, whatever it remembers: enough for generation, beams and truncated training."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class State(Protocol):
    """A cache or a recurrent state of a batch of sequences."""

    @property
    def seen(self) -> Tensor:
        """Tokens that each sequence has been through, int64 [batch]."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of everything that is kept."""
        ...

    def detach(self) -> Self:
        """The same contents outside of the graph: gradients stop here."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """On another device, or with floating contents in another type."""
        ...

    def select(self, index: Tensor) -> Self:
        """A state of the sequences ``index``, each as often as it is named; independent of this one."""
        ...

    def repeat(self, times: int) -> Self:
        """Each sequence ``times`` times in a row."""
        ...

    def reorder(self, index: Tensor) -> None:
        """Put sequence ``index[i]`` in place ``i``, as beam search does between steps."""
        ...

    def crop(self, tokens: int) -> Self:
        """The state after the first ``tokens`` tokens, or a ValueError that says why it is lost."""
        ...

    def check_integrity(self) -> None:
        """Raise an AssertionError if the contents contradict each other."""
        ...
