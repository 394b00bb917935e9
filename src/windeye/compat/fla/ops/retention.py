"""Retention (RetNet): head h keeps ``1 - 2^(-5 - h)`` of its state from token to token."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye import decay
from windeye.compat.fla.ops.call import check_options, recurrence
from windeye.compat.fla.ops.simple_gla import old_state_layout, parallel_simple_gla


def chunk_retention(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads key_dim value_dim"] | None = None,
    output_final_state: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """`chunk_simple_gla` with RetNet's decay.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 50, 2, 8).unbind(0)
        >>> chunk_retention(q, k, v)[0].shape
        torch.Size([1, 50, 2, 8])
    """
    return recurrence(
        q, k, v, log_decay=log_decay(q), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, cu_seqlens=cu_seqlens, chunk_size=check_options(kwargs),
    )  # fmt: skip


def fused_chunk_retention(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads key_dim value_dim"] | None = None,
    output_final_state: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The function of `chunk_retention`; here the same kernel."""
    return recurrence(
        q, k, v, log_decay=log_decay(q), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, cu_seqlens=cu_seqlens,
    )  # fmt: skip


def fused_recurrent_retention(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads _ _"] | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function of `chunk_retention`, with ``reverse`` and layouts as in `fused_recurrent_simple_gla`."""
    return recurrence(
        q, k, v, log_decay=log_decay(q), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, reverse=reverse,
        state_v_first=old_state_layout(state_v_first, kwargs), cu_seqlens=cu_seqlens,
    )  # fmt: skip


def parallel_retention(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    output_attentions: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, Float[Tensor, "batch heads tokens tokens"] | None]:
    """`parallel_simple_gla` with RetNet's decay."""
    if not output_attentions:
        return recurrence(q, k, v, log_decay=log_decay(q), scale=scale, cu_seqlens=cu_seqlens)
    return parallel_simple_gla(q, k, v, log_decay(q).expand(q.shape[:3]), scale, True, cu_seqlens)


def log_decay(q: Tensor) -> Tensor:
    """One a head, computed in float64."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return -decay.retnet_rates(q.shape[2]).to(q.device, wide)
