"""What states made of tensors share: one row per sequence, and every operation on rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass
class TensorState:
    """A state whose tensors all have the batch as their first axis. Implements `windeye.memory.State`.

    A mixer never changes a state it is given, it returns a new one: a state can be continued more than once.
    """

    kinds: ClassVar[dict[str, type[TensorState]]] = {}
    """Every kind of state by its name, as files name it."""

    seen: Int[Tensor, " batch"]
    """Tokens that each sequence has been through, padding not counted: the position of the next token."""

    def __init_subclass__(cls) -> None:
        TensorState.kinds[cls.__name__] = cls

    def tensors(self) -> dict[str, Tensor]:
        """The contents by name; fields that are no tensors are settings."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same state with every tensor changed."""
        return replace(self, **{name: change(tensor) for name, tensor in self.tensors().items()})

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def detach(self) -> Self:
        return self.map(lambda t: t.detach())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        return self.map(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None))

    def select(self, index: Int[Tensor, " chosen"]) -> Self:
        return self.map(lambda t: t.index_select(0, index.to(t.device)))

    def repeat(self, times: int) -> Self:
        """Each sequence ``times`` times in a row, as sampling several continuations of one prompt needs."""
        return self.select(torch.arange(self.seen.shape[0]).repeat_interleave(times))

    def reorder(self, index: Int[Tensor, " batch"]) -> None:
        if index.shape != self.seen.shape:
            raise ValueError(f"index must name {self.seen.shape[0]} sequences, got {tuple(index.shape)}")
        for name, tensor in self.select(index).tensors().items():
            setattr(self, name, tensor)

    def crop(self, tokens: int) -> Self:
        """The state as it was after the first ``tokens`` tokens of each sequence.

        Raises:
            ValueError: what went into the state cannot be taken out again.
        """
        if bool((self.seen <= tokens).all()):
            return self.map(lambda t: t)
        raise ValueError(
            f"{type(self).__name__} cannot be cropped to {tokens} tokens: it has forgotten what earlier queries need; "
            f"keep the state of that moment instead"
        )

    def check_integrity(self) -> None:
        batch = {t.shape[0] for t in self.tensors().values()}
        assert len(batch) == 1, f"tensors have different numbers of rows: {batch}"
        assert (self.seen >= 0).all(), "a sequence has seen less than nothing"


def latest(
    tokens: Shaped[Tensor, "batch n *rest"], places: int, trailing: Int[Tensor, " batch"] | None = None
) -> Shaped[Tensor, "batch places *rest"]:
    """The last ``places`` tokens of each row, so that the newest stands last; ``trailing`` of a row are padding.

    A row that is shorter than ``places`` has arbitrary tokens in front.
    """
    n = tokens.shape[1]
    if trailing is None:
        kept = tokens[:, n - places :]
        # A view would keep the tokens that it does not show in memory.
        return kept.contiguous() if places == n else kept.clone()
    index = torch.arange(n - places, n, device=tokens.device) - trailing[:, None].to(tokens.device)
    rows = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    return tokens[rows, index.clamp(min=0)]
