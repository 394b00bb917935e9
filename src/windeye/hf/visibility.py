"""Who sees whom in a call of transformers, read off the mask that the model made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.kernels.statistics.relation import Masked, Relation, Runs
from windeye.patterns import Causal, Full


@dataclass(frozen=True, eq=False)
class Visibility:
    """The relation of one mask, and what else the mask adds to the logits."""

    relation: Relation
    bias: Float[Tensor, "batch heads queries keys"] | None = None


class VisibilityCache:
    """Masks are made once per pass and used by all layers: so are the relations read off them."""

    def __init__(self) -> None:
        self._last: dict[tuple[object, ...], tuple[Tensor | None, Visibility]] = {}

    def clear(self) -> None:
        """Forget what belongs to earlier passes."""
        self._last.clear()

    def of(
        self, mask: Tensor | None, queries: int, keys: int, *, causal: bool, offset: int, device: torch.device
    ) -> Visibility:
        """The relation of a mask; without one, of causal attention or of everything.

        Args:
            causal: whether attention without a mask sees the past only.
            offset: position of the first query among the keys.
        """
        # A tensor is kept beside its relation, so that no other one can take its number while the entry stands.
        place = (id(mask) if mask is not None else None, queries, keys, causal, offset)
        if place not in self._last:
            self._last[place] = (mask, read(mask, queries, keys, causal=causal, offset=offset, device=device))
        return self._last[place][1]


def read(
    mask: Tensor | None, queries: int, keys: int, *, causal: bool, offset: int, device: torch.device
) -> Visibility:
    """See `VisibilityCache.of`.

    Raises:
        ValueError: the mask is none that torch's attention would take.
    """
    if mask is None:
        # As torch does it: one query sees everything, several are aligned with the first keys.
        pattern = Causal() if causal and queries > 1 else Full()
        bound = pattern.bind((queries,), (queries if causal and queries > 1 else keys,))
        runs = Runs.of_bound(bound, device)
        return Visibility(Runs(runs.start, runs.stop, keys, offset))
    if mask.dim() != 4 or mask.shape[2] not in (1, queries):
        raise ValueError(
            f"attention_mask must be [batch, heads, queries {queries}, keys {keys}], got {tuple(mask.shape)}; "
            'models with attn_implementation "sdpa" or "eager" make such masks'
        )
    mask = mask[..., :keys].expand(-1, -1, queries, -1)
    allowed, bias = _split(mask)
    if mask.shape[1] == 1:
        return Visibility(Runs.of_mask(allowed[:, 0], offset), bias)
    return Visibility(Masked(allowed, offset), bias)


def _split(mask: Tensor) -> tuple[Bool[Tensor, "batch heads queries keys"], Tensor | None]:
    """What a mask hides, and what it adds where it does not."""
    if mask.dtype == torch.bool:
        return mask, None
    allowed = mask > torch.finfo(mask.dtype).min / 2
    bias = mask.masked_fill(~allowed, 0.0)
    return allowed, bias if bool(bias.any()) else None
