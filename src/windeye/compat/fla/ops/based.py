"""Based: the weight ``1 + u + u^2 / 2`` of ``u = scale <q, k>``, divided by its sum plus 1e-6 with ``use_norm``."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.ops import linear_attention

EPSILON = 1e-6


def parallel_based(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    use_norm: bool = True,
) -> Float[Tensor, "batch tokens heads value_dim"]:
    """Causal linear attention with the Taylor features of exp; ``scale`` is ``key_dim ** -0.5`` unless given.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 50, 2, 16).unbind(0)
        >>> parallel_based(q, k, v).shape
        torch.Size([1, 50, 2, 16])
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # In float32 the scaled query and, before they are divided, the sums are not rounded to a half type.
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    if use_norm:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    sums = linear_attention(q.to(wide) * scale, k.to(wide), v.to(wide), feature_map="taylor2")
    o = sums[..., :-1] / (sums[..., -1:] + EPSILON) if use_norm else sums
    return o.to(q.dtype)


def fused_chunk_based(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    use_norm: bool = True,
) -> Float[Tensor, "batch tokens heads value_dim"]:
    """The function of `parallel_based`; here the same kernel."""
    return parallel_based(q, k, v, scale, use_norm)
