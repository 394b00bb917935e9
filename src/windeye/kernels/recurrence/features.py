"""Feature maps: ``<phi(q), phi(k)> = weight(<q, k>)``, so that a sum over the past becomes a state of fixed size.

The second-order Taylor map of exp, ``weight(u) = 1 + u + u^2 / 2``, is kept compact: every product of two coordinates
once. Order of its features: 1, the coordinates, their squares over sqrt(2), then the products ``x_i x_j`` with
``i > j`` row by row.
"""

from __future__ import annotations

import torch

FEATURE_MAPS = (None, "taylor2")


def width(feature_map: str | None, head_dim: int) -> int:
    """Features of a vector of ``head_dim`` coordinates: rows of the state."""
    return head_dim if feature_map is None else 1 + head_dim + head_dim * (head_dim + 1) // 2


def features(feature_map: str | None, x: torch.Tensor) -> torch.Tensor:
    """``phi(x)`` along the last axis.

    Example:
        >>> q, k = torch.randn(2, 5, dtype=torch.float64).unbind(0)
        >>> u = q @ k
        >>> torch.allclose(features("taylor2", q) @ features("taylor2", k), 1 + u + u**2 / 2)
        True
    """
    if feature_map is None:
        return x
    row, column = torch.tril_indices(x.shape[-1], x.shape[-1], -1, device=x.device)
    products = x[..., row] * x[..., column]
    return torch.cat([torch.ones_like(x[..., :1]), x, x * x * 0.5**0.5, products], dim=-1)


def weight(feature_map: str | None, u: torch.Tensor) -> torch.Tensor:
    """``<phi(q), phi(k)>`` as a function of ``u = <q, k>``."""
    return u if feature_map is None else 1 + u + 0.5 * u * u
