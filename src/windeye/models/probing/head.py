"""What is trained on a frozen encoder: a pool, a norm without weights, a linear map."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.pools import TokenPool

NORM_EPS = 1e-6


class ProbeHead(nn.Module):
    """``classifier(norm(pool(x)))``: batch normalisation without weights (running statistics, eps 1e-6), then a linear
    map with bias.

    Source: efficient-probing spec; equal to the official heads, see tests/models/probing/test_golden_heads.py.

    Example:
        >>> import torch
        >>> from windeye.nn.pools import EfficientPool
        >>> head = ProbeHead(EfficientPool(768, queries=32), classes=1000)
        >>> sum(p.numel() for p in head.parameters())
        1383400
    """

    def __init__(self, pool: TokenPool, classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm1d(pool.out_dim, eps=NORM_EPS, affine=False)
        self.classifier = nn.Linear(pool.out_dim, check_count("classes", classes))

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], padding: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of tokens, [batch, tokens, dim] or [batch, height, width, dim]; ``padding`` is True where there is
        none."""
        return self.classifier(self.norm(self.pool(x, padding)))
