"""Lightning attention with the slopes of this library: ``8 h / heads (1 - layer_idx / num_layers)`` for head h from 0.

They are neither those of the paper nor those of the released TransNormerLLM; `windeye.decay.tnl_rates` has them all.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye import decay
from windeye.compat.fla.ops.call import check_options, recurrence


def chunk_lightning_attn(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    layer_idx: int,
    num_layers: int,
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads key_dim value_dim"] | None = None,
    output_final_state: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """`chunk_simple_gla` with one decay per head that depends on the layer.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 50, 2, 8).unbind(0)
        >>> chunk_lightning_attn(q, k, v, layer_idx=0, num_layers=12)[0].shape
        torch.Size([1, 50, 2, 8])
    """
    return recurrence(
        q, k, v, log_decay=log_decay(q, layer_idx, num_layers), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, cu_seqlens=cu_seqlens, chunk_size=check_options(kwargs),
    )  # fmt: skip


def fused_recurrent_lightning_attn(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    layer_idx: int,
    num_layers: int,
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads key_dim value_dim"] | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The function of `chunk_lightning_attn`, with ``reverse`` as in `fused_recurrent_simple_gla`."""
    return recurrence(
        q, k, v, log_decay=log_decay(q, layer_idx, num_layers), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, reverse=reverse, cu_seqlens=cu_seqlens,
    )  # fmt: skip


def log_decay(q: Tensor, layer_idx: int, num_layers: int) -> Tensor:
    """One a head; head 0 never forgets."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return -decay.tnl_rates(q.shape[2], layer_idx, num_layers, convention="fla").to(q.device, wide)
