"""Attention over the whole map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Full

LocalSource = Literal["values", "input"]


class FullMixer(TokenMixer):
    """Every token attends to every token: ``proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h + local(v))``.

    Args:
        dim, heads: channels, and heads that share them.
        local: side of a depthwise convolution that is added to the result; None adds none.
        local_on: what it convolves: the values, or the input, as the last stage of BiFormer does.
        qkv_bias: whether ``qkv`` adds a bias.
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Raises:
        ValueError: ``local`` is even, or an unknown ``local_on``.

    Example:
        >>> import torch
        >>> FullMixer(32, heads=4)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    attention_site = True

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        local: int | None = None,
        local_on: LocalSource = "values",
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        if local is not None and local % 2 == 0:
            raise ValueError(f"local must be odd, got {local}")
        if local_on not in get_args(LocalSource):
            raise ValueError(f"local_on must be one of {', '.join(get_args(LocalSource))}, got {local_on!r}")
        self.local_on = local_on
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.local = None if local is None else nn.Conv2d(dim, dim, local, padding=local // 2, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return (Plan(query, key, value, Full(), self.head_dim**-0.5),)

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        mixed = out.flatten(-2)
        if self.local is not None:
            source = x if self.local_on == "input" else plans[0].value.flatten(-2)
            mixed = mixed + self.local(source.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj_drop(self.proj(mixed))


@token_mixer("full")
@dataclass(frozen=True)
class FullSpec:
    """`windeye.nn.mixers.FullMixer`."""

    kind: ClassVar[str]
    local: int | None = None
    local_on: LocalSource = "values"
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return FullMixer(dim, heads, **asdict(self))
