"""Attention of each token to its neighbourhood."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.nn.neighborhood import NeighborhoodAttention2d


class NeighborhoodMixer(TokenMixer):
    """`windeye.nn.NeighborhoodAttention2d` as a mixer: maps smaller than the dilated window are padded, as NAT and
    DiNAT were trained.

    Example:
        >>> import torch
        >>> NeighborhoodMixer(32, heads=4, kernel_size=3, dilation=2)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    attention_site = True

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: int | tuple[int, int] = 7,
        *,
        stride: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        bias_table: bool = True,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.layer = NeighborhoodAttention2d(
            dim, heads, kernel_size, stride=stride, dilation=dilation, qkv_bias=qkv_bias, bias_table=bias_table,
            small_map="pad",
        )  # fmt: skip
        self.layer.attention_site = False  # the mixer is the site

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: the bias table, where there is one."""
        return {f"layer.{name}" for name in self.layer.no_weight_decay()}

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        query, key, value = self.layer.project(x)
        return (Plan(query, key, value, self.layer.pattern, self.head_dim**-0.5, self.layer.rpb),)

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        del x, plans
        return self.proj_drop(self.layer.proj(out.flatten(-2)))


@token_mixer("neighborhood")
@dataclass(frozen=True)
class NeighborhoodSpec:
    """`windeye.nn.mixers.NeighborhoodMixer`; with a dilation it is DiNAT's second block."""

    kind: ClassVar[str]
    kernel_size: int | tuple[int, int] = 7
    stride: int | tuple[int, int] = 1
    dilation: int | tuple[int, int] = 1
    bias_table: bool = True
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return NeighborhoodMixer(dim, heads, **asdict(self))
