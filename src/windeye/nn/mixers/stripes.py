"""Attention inside a cross of stripes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Blocks
from windeye.tokens import counts, crop, fill, merge, partition


class StripeMixer(TokenMixer):
    """Half of the heads attend inside columns of the map ``stripe`` wide, the other half inside rows ``stripe`` high.

    ``out = proj(concat_h(softmax(q_h k_h^T / sqrt(head_dim)) v_h + conv(v_h)))``, where ``conv`` is a 3 x 3 depthwise
    convolution of the values inside each stripe, with zeros at its borders (locally-enhanced position encoding).

    Args:
        dim, heads: channels, and heads that share them; heads are even, unless ``stripe`` is None.
        stripe: width of a stripe, in tokens; the last one may be narrower. None is the whole map for all heads, CSWin's
            last stage.
        qkv_bias: whether ``qkv`` adds a bias.
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Raises:
        ValueError: an odd number of heads.

    Source: CSWin (maformer spec, table of peers; vision notes).

    Example:
        >>> StripeMixer(32, heads=4, stripe=2)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        stripe: int | None = 7,
        *,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.stripe = None if stripe is None else check_count("stripe", stripe)
        branches = 1 if stripe is None else 2
        if heads % branches:
            raise ValueError(f"heads must be even, half for each direction, got {heads}")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.local = nn.ModuleList(
            nn.Conv2d(dim // branches, dim // branches, 3, padding=1, groups=dim // branches) for _ in range(branches)
        )
        self.proj = nn.Linear(dim, dim)

    def head_kinds(self) -> tuple[str, ...]:
        half = self.heads // 2
        return () if self.stripe is None else ("columns",) * half + ("rows",) * half

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        # Told without the size of the map: one pattern, and one compiled graph, for all.
        sizes = ((-1, -1),) if self.stripe is None else ((-1, self.stripe), (self.stripe, -1))
        joint = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        scale = self.head_dim**-0.5
        plans = []
        for part, size in zip(joint.chunk(len(sizes), dim=-2), sizes, strict=True):
            query, key, value = part.unbind(-3)
            plans.append(Plan(query, key, value, Blocks(size), scale))
        return tuple(plans)

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        del x
        # Cut out, stripes are entries of a batch, for whose number torch compiles convolutions again.
        inside = _inside_on_the_map if torch.compiler.is_compiling() else _inside
        near = [
            inside(conv, plan.value.flatten(-2), axis, self.stripe)
            for conv, plan, axis in zip(self.local, plans, (2, 1), strict=False)
        ]
        return self.proj_drop(self.proj(out.flatten(-2) + torch.cat(near, dim=-1)))


def _inside(conv: nn.Module, x: Float[Tensor, "batch height width channels"], axis: int, stripe: int | None) -> Tensor:
    """The convolution inside of stripes that cut ``axis``; None is the whole map."""
    grid = (x.shape[1], x.shape[2])
    rows, columns = (n if stripe is None or at != axis else min(stripe, n) for at, n in enumerate(grid, 1))
    cut = partition(x, (rows, columns))
    out = conv(cut.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return merge(torch.unflatten(out, 0, cut.shape[:2]), grid)


def _inside_on_the_map(
    conv: nn.Module, x: Float[Tensor, "batch height width channels"], axis: int, stripe: int | None
) -> Tensor:
    """The same with the stripes where they are, zeros behind each: slower by the zeros."""
    if stripe is None:
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    grid, size = (x.shape[1], x.shape[2]), (stripe if axis == 1 else 1, stripe if axis == 2 else 1)
    count = counts(grid, size)[axis - 1]
    x = torch.unflatten(fill(x, size), axis, (count, stripe))
    x = F.pad(x, (*(0, 0) * (3 - axis), 0, 1)).flatten(axis, axis + 1)
    x = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    x = torch.unflatten(x, axis, (count, stripe + 1)).narrow(axis + 1, 0, stripe)
    return crop(x.flatten(axis, axis + 1), grid)


@token_mixer("stripes")
@dataclass(frozen=True)
class StripeSpec:
    """`windeye.nn.mixers.StripeMixer`."""

    kind: ClassVar[str]
    stripe: int | None = 7
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return StripeMixer(dim, heads, **asdict(self))
