"""What all operators share: fla's conventions on top of `windeye.linear_attention`, and its refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from windeye.ops import linear_attention


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``(o, final_state | None)``: a scale of ``K ** -0.5`` unless given, states in float32 in either layout, and the
    walk from the last token to the first for ``reverse``."""
    check_packing(q, initial_state, cu_seqlens)
    order = reversed_order(q, cu_seqlens) if reverse else None
    if order is not None:
        q, k, v = (t[:, order] for t in (q, k, v))
        log_decay = log_decay[:, order] if log_decay is not None and log_decay.dim() == 3 else log_decay
    o, state = linear_attention(
        q, k, v, log_decay=log_decay, scale=k.shape[-1] ** -0.5 if scale is None else scale,
        initial_state=_state(q, initial_state, state_v_first), return_state=True, cu_seqlens=cu_seqlens,
        chunk_size=chunk_size,
    )  # fmt: skip
    if order is not None:
        o = o[:, order]
    if not output_final_state:
        return o, None
    return o, state.transpose(-1, -2) if state_v_first else state


def reversed_order(q: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Indices that turn every sequence around; turned twice it is itself."""
    bounds = [0, q.shape[1]] if cu_seqlens is None else cu_seqlens.tolist()
    each = [torch.arange(stop - 1, start - 1, -1) for start, stop in pairwise(bounds) if stop > start]
    return torch.cat(each or [torch.arange(0)]).to(q.device)


def check_packing(q: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> None:
    """Packed sequences are one batch entry and start from one state each."""
    if cu_seqlens is None:
        return
    if q.shape[0] != 1:
        raise ValueError(
            f"q has batch {q.shape[0]}, but with cu_seqlens the batch must be 1: lay the sequences one after the other"
        )
    sequences = len(cu_seqlens) - 1
    if initial_state is not None and initial_state.shape[0] != sequences:
        raise ValueError(f"initial_state has {initial_state.shape[0]} states but cu_seqlens has {sequences} sequences")


def check_options(options: dict[str, Any]) -> int | None:
    """fla's chunk operators take ``chunk_size`` as a keyword beyond their signature; it is what is left of these."""
    if "head_first" in options:
        raise DeprecationWarning("head_first is gone: q, k and v must be [batch, tokens, heads, dim]")
    chunk_size = options.pop("chunk_size", None)
    if options:
        raise TypeError(f"unknown argument {next(iter(options))!r}")
    if chunk_size is not None and (chunk_size < 1 or chunk_size & (chunk_size - 1)):
        raise ValueError(f"chunk_size must be a power of 2, got {chunk_size}")
    return chunk_size


def _state(q: Tensor, state: Tensor | None, state_v_first: bool) -> Tensor | None:
    if state is None:
        return None
    state = state.to(torch.float64 if q.dtype == torch.float64 else torch.float32)
    return state.transpose(-1, -2) if state_v_first else state
