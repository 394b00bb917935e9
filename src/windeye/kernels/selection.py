"""Which keys stay: selection by a score per key that does not depend on the query, told as key lifetimes.

Because the score is the key's own, the sets of kept keys are nested: a key that was dropped never returns. Its life is
one interval, so ``n`` integers per head say what an ``n x n`` mask would. Source: dma spec.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.kernels import native
from windeye.patterns.lifetimes import visible
from windeye.patterns.pattern import is_int

Selection = Literal["causal", "global", "relu", "windowed", "smoothed"]
SELECTIONS: tuple[Selection, ...] = ("causal", "global", "relu", "windowed", "smoothed")

_CHUNK = 1 << 24
"""Comparisons that the torch fallback holds at once."""


def topw_expiry(
    score: Float[Tensor, "batch heads keys"],
    w: int,
    lengths: Int[Tensor, " batch"] | None = None,
    *,
    key_padding: Bool[Tensor, "batch keys"] | None = None,
    window: int | None = None,
    selection: Literal["causal", "global", "relu"] = "causal",
) -> Int[Tensor, "batch heads keys"]:
    """For each key the first query that no longer keeps it: the table of `windeye.Expiry`.

    Query ``i`` keeps the ``w`` keys ``j <= i`` of largest ``score[j]``; of equal scores the later key wins, so that
    constant scores keep a sliding window of ``w``. A key that its own query does not keep has expiry ``j``.

    Args:
        score: one number per key and head, larger is kept longer. Any floating type, no NaN; not differentiated:
            attention's ``bias`` carries its gradient.
        w: keys that each query keeps, at least 1.
        lengths: true lengths of sequences that are padded on the right. Keys past the end never live, and no key
            outlives it, so that padded queries see nothing.
        key_padding: True takes a key out of the competition, as left padding needs it.
        window: besides, a key lives for ``window`` queries at most. It is applied after the selection: keys that have
            left the window still take one of the ``w`` places. Before it, lives are no intervals: `topw_mask`.
        selection: "causal" as above, or, for comparison, what published code also does:
            "global": one top-w of the whole sequence, then causal. **It looks at the future**: which keys a query
            sees depends on later keys, and early queries may see none, so training and decoding differ.
            "relu": every key with a score above zero lives for ever, ``w`` means nothing. Queries before the
            first such key see none.

    Returns:
        int32. ``O(n log w)`` per head in C++ on CPUs; elsewhere ``O(n^2)`` comparisons in torch, with the same result.

    Raises:
        TypeError, ValueError: shapes, types, ``w``, or a NaN; names the argument and the values.

    Example:
        >>> score = torch.tensor([[[3.0, 1.0, 2.0, 0.0, 5.0]]])
        >>> topw_expiry(score, 2).tolist()
        [[[5, 2, 4, 3, 5]]]
        >>> topw_expiry(torch.zeros(1, 1, 5), 2).tolist()
        [[[2, 3, 4, 5, 5]]]
    """
    hidden = _hidden(score, w, lengths, key_padding)
    _check_window(window)
    keys = score.shape[-1]
    born = torch.arange(keys, dtype=torch.int32, device=score.device)
    if selection == "causal":
        expiry = torch.ops.windeye.topw_expiry(score.detach(), hidden, w)
    elif selection in ("global", "relu"):
        kept = _globally_best(score.detach(), hidden, w) if selection == "global" else score.detach() > 0
        if hidden is not None:
            kept = kept & ~hidden[:, None]
        expiry = torch.where(kept, keys, born)
    elif selection in SELECTIONS:
        raise ValueError(f'selection "{selection}" does not give each key one interval of life; use topw_mask')
    else:
        raise ValueError(f'selection must be "causal", "global" or "relu", got {selection!r}')
    if window is not None:
        expiry = torch.minimum(expiry, born + window)
    if lengths is not None:
        end = lengths.to(score.device, torch.int32)[:, None, None]
        expiry = torch.maximum(torch.minimum(expiry, end), torch.minimum(expiry, born))
    return expiry


def topw_mask(
    score: Float[Tensor, "batch heads keys"],
    w: int,
    lengths: Int[Tensor, " batch"] | None = None,
    *,
    key_padding: Bool[Tensor, "batch keys"] | None = None,
    window: int | None = None,
    block: int | None = None,
    selection: Selection = "causal",
) -> Bool[Tensor, "batch heads queries keys"]:
    """Who sees whom under each published selection, dense: quadratic memory, to compare with and to test against.

    "causal", "global" and "relu" are as in `topw_expiry`. The others have no lifetimes:

    - "windowed": the ``w`` best keys among the last ``window``. A dropped key can return when a better one leaves the
      window.
    - "smoothed": as "causal", then a block of ``block`` keys is seen entirely if more than half of its keys are kept,
      else not at all. Its keys after the query are hidden again, which published code leaves out; a query may see
      none. A short last block counts by its own length.

    Example:
        >>> topw_mask(torch.tensor([[[2.0, 1.0, 0.0]]]), 1, window=2, selection="windowed")[0, 0].int().tolist()
        [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    hidden = _hidden(score, w, lengths, key_padding)
    _check_window(window)
    if selection not in SELECTIONS:
        raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")
    if (selection == "windowed") > (window is not None):
        raise ValueError('selection "windowed" needs a window, got None')
    if (selection == "smoothed") != (block is not None):
        raise ValueError(f'block belongs to selection "smoothed", got block={block} with "{selection}"')
    keys = score.shape[-1]
    if selection in ("causal", "global", "relu"):
        options = {"key_padding": key_padding, "window": window, "selection": selection}
        return visible(topw_expiry(score, w, lengths, **options), keys)  # type: ignore[arg-type]
    born = torch.arange(keys, device=score.device)
    shown = (born <= born[:, None]).expand(*score.shape, keys)
    if hidden is not None:
        shown = shown & ~hidden[:, None, None]
    if window is not None:
        shown = shown & (born > born[:, None] - window)
    # Sorted by score and position, the keys that follow a key in its row are those that beat it.
    order = torch.argsort(score.detach(), dim=-1, stable=True)
    sorted_shown = torch.gather(shown, -1, order[..., None, :].expand(*score.shape, keys))
    ahead = sorted_shown.flip(-1).cumsum(-1).flip(-1)
    kept = torch.zeros_like(shown).scatter(-1, order[..., None, :].expand_as(shown), sorted_shown & (ahead <= w))
    if lengths is not None:
        kept = kept & (born < lengths.to(score.device)[:, None])[:, None, :, None]
    return kept if block is None else _smoothed(kept, block) & shown


def _smoothed(kept: Tensor, block: int) -> Tensor:
    if not is_int(block) or block < 1:
        raise ValueError(f"block must be an integer of at least 1, got {block!r}")
    keys = kept.shape[-1]
    padded = torch.nn.functional.pad(kept.long(), (0, -keys % block))
    count = padded.reshape(*kept.shape[:-1], -1, block).sum(dim=-1)
    size = torch.full((count.shape[-1],), block, device=kept.device)
    if keys % block:
        size[-1] = keys % block
    return (2 * count > size).repeat_interleave(block, dim=-1)[..., :keys]


def _hidden(score: Tensor, w: int, lengths: Tensor | None, key_padding: Tensor | None) -> Tensor | None:
    """Keys that do not compete, bool [batch, keys], from checked arguments."""
    if not isinstance(score, Tensor):
        raise TypeError(f"score must be a torch.Tensor, got {type(score).__name__}")
    if not score.is_floating_point():
        raise TypeError(f"score must be floating point, got {score.dtype}")
    if score.dim() != 3:
        raise ValueError(f"score must be [batch, heads, keys], got shape {tuple(score.shape)}")
    if not is_int(w) or w < 1:
        raise ValueError(f"w must be an integer of at least 1, got {w!r}")
    batch, _, keys = score.shape
    hidden = None
    if lengths is not None:
        if not isinstance(lengths, Tensor) or lengths.shape != (batch,) or lengths.is_floating_point():
            raise ValueError(f"lengths must be {batch} integers in a tensor, one per batch entry, got {lengths!r}")
        hidden = torch.arange(keys, device=score.device) >= lengths.to(score.device)[:, None]
    if key_padding is not None:
        if not isinstance(key_padding, Tensor) or key_padding.dtype != torch.bool:
            raise TypeError(f"key_padding must be a bool tensor (True hides a key), got {key_padding!r}")
        if key_padding.shape != (batch, keys):
            raise ValueError(f"key_padding must be {(batch, keys)}, got {tuple(key_padding.shape)}")
        hidden = key_padding if hidden is None else hidden | key_padding
    return hidden


def _check_window(window: int | None) -> None:
    if window is not None and (not is_int(window) or window < 1):
        raise ValueError(f"window must be an integer of at least 1, got {window!r}")


def _ranks(score: Tensor, hidden: Tensor | None) -> Tensor:
    """Position of each key in the order by score, then by age; hidden keys beat nobody."""
    rank = torch.argsort(torch.argsort(score, dim=-1, stable=True), dim=-1)
    return rank if hidden is None else rank.masked_fill(hidden[:, None], -1)


def _globally_best(score: Tensor, hidden: Tensor | None, w: int) -> Tensor:
    best = _ranks(score, hidden).topk(min(w, score.shape[-1]), dim=-1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, True)


@torch.library.custom_op("windeye::topw_expiry", mutates_args=())
def _topw_expiry(score: Tensor, hidden: Tensor | None, w: int) -> Tensor:
    """The causal selection as an operator, so that compiled graphs do not trace it."""
    nan = score.isnan()
    if nan.any():
        where = tuple(int(at) for at in nan.nonzero()[0])
        raise ValueError(f"score is NaN at [batch, head, key] = {list(where)}; a NaN has no rank")
    if score.device.type == "cpu" and native.cpu is not None:
        return _native(score, hidden, w)
    return _in_torch(score, hidden, w)


@_topw_expiry.register_fake
def _(score: Tensor, _hidden: Tensor | None, _w: int) -> Tensor:
    return score.new_empty(score.shape, dtype=torch.int32)


def _native(score: Tensor, hidden: Tensor | None, w: int) -> Tensor:
    batch, heads, keys = score.shape
    wide = score.dtype == torch.float64
    score = score.to(torch.float64 if wide else torch.float32).contiguous()
    hidden = None if hidden is None else hidden.contiguous()
    expiry = torch.empty(score.shape, dtype=torch.int32)
    address = 0 if hidden is None else hidden.data_ptr()
    sizes = (batch, heads, keys, min(w, keys))
    if keys:
        native.cpu.topw_expiry(score.data_ptr(), wide, address, expiry.data_ptr(), *sizes, torch.get_num_threads())
    return expiry


def _in_torch(score: Tensor, hidden: Tensor | None, w: int) -> Tensor:
    """A key dies where the ``w``-th better key has come: count better keys along the sequence, some keys at a time."""
    keys = score.shape[-1]
    born = torch.arange(keys, device=score.device)
    rank = _ranks(score, hidden)
    chunk = max(1, _CHUNK // max(1, score.numel()))
    expiry = torch.empty(score.shape, dtype=torch.int32, device=score.device)
    for first in range(0, keys, chunk):
        own = slice(first, first + chunk)
        better = rank[..., None, :] > rank[..., own, None]
        expiry[..., own] = (better.cumsum(dim=-1, dtype=torch.int32) < w).sum(dim=-1).int()
    expiry = torch.maximum(expiry, born.int())
    return expiry if hidden is None else torch.where(hidden[:, None], born.int(), expiry)
