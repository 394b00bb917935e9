"""Attention of all tokens to a smaller map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Full
from windeye.tokens import fill


class SpatialReductionMixer(TokenMixer):
    """Keys and values come from a map that a strided convolution made ``ratio`` times smaller on each axis (PVT).

    ``out = proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h)`` with ``q = query(x)`` and
    ``k, v = key_value(norm(reduce(x)))``. With a ratio of 1 there is no convolution, and it is full attention. A map
    that does not divide is filled up with zeros at its right and bottom before the convolution.

    Source: Pyramid Vision Transformer; layer names as usual there: q, kv, sr, norm.

    Example:
        >>> import torch
        >>> SpatialReductionMixer(32, heads=4, ratio=4)(torch.randn(2, 9, 7, 32)).shape
        torch.Size([2, 9, 7, 32])
    """

    attention_site = True

    def __init__(
        self,
        dim: int,
        heads: int,
        ratio: int = 2,
        *,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.ratio = check_count("ratio", ratio)
        self.query = nn.Linear(dim, dim, bias=qkv_bias)
        self.reduce = nn.Conv2d(dim, dim, ratio, ratio) if ratio > 1 else None
        self.norm = nn.LayerNorm(dim) if ratio > 1 else None
        self.key_value = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        query = self.query(x).unflatten(-1, (self.heads, -1))
        key, value = self.key_value(self._reduced(x)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return (Plan(query, key, value, Full(), self.head_dim**-0.5),)

    def span(self, height: int, width: int) -> tuple[float, float]:
        del height, width
        return self.ratio, self.ratio

    def _reduced(self, x: Tensor) -> Tensor:
        if self.reduce is None or self.norm is None:
            return x
        x = fill(x, (self.ratio, self.ratio))
        return self.norm(self.reduce(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@token_mixer("spatial_reduction")
@dataclass(frozen=True)
class SpatialReductionSpec:
    """`windeye.nn.mixers.SpatialReductionMixer`."""

    kind: ClassVar[str]
    ratio: int = 2
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return SpatialReductionMixer(dim, heads, **asdict(self))
