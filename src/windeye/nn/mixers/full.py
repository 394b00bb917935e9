"""Attention over the whole map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Full


class FullMixer(TokenMixer):
    """Every token attends to every token: ``proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h)``.

    Example:
        >>> import torch
        >>> FullMixer(32, heads=4)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    attention_site = True

    def __init__(
        self, dim: int, heads: int, *, qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return (Plan(query, key, value, Full(), self.head_dim**-0.5),)


@token_mixer("full")
@dataclass(frozen=True)
class FullSpec:
    """`windeye.nn.mixers.FullMixer`."""

    kind: ClassVar[str]
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return FullMixer(dim, heads, **asdict(self))
