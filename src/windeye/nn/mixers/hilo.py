"""Attention of some heads inside small windows, and of the others to the means of those windows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Blocks, Full
from windeye.tokens import fill, pool


class HiLoMixer(TokenMixer):
    """High frequencies inside windows, low frequencies by way of their means; each kind of head mixes with its own.

    ``out = concat(hi_proj(H), lo_proj(L))`` on the channels, high first. ``H`` are heads of full attention inside
    ``window x window`` tokens, of ``hi_qkv(x)``; ``L`` are heads whose queries ``lo_q(x)`` attend to the keys and
    values ``lo_kv(mean of each window of x)``. Both read all channels of ``x``.

    Args:
        dim, heads: channels, and heads that share them.
        window: side of a window, in tokens. With 1 all heads are low, whatever ``alpha``: it is full attention.
        alpha: share of low heads. 0 is attention inside windows alone, 1 is attention to means alone.
        nearest_split: round ``alpha heads`` to the nearest number of low heads; as published it is cut off, so that
            0.9 of 12 heads are 10.
        pad_input: fill the map with zeros to whole windows; they count in the means and are seen inside windows, as the
            official layers of detectors do. Otherwise windows at the rim are smaller.
        qkv_bias: whether ``hi_qkv``, ``lo_q`` and ``lo_kv`` add a bias.
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Raises:
        ValueError: ``alpha`` is not in [0, 1], ``window`` is below 1, ``heads`` does not divide ``dim``.

    Source: Pan et al., "Fast Vision Transformers with HiLo Attention" (hilo spec). Official names: l_q, l_kv, l_proj,
    h_qkv, h_proj.

    Example:
        >>> layer = HiLoMixer(384, heads=12, window=2, alpha=0.9)
        >>> layer.high, layer.low, layer(torch.randn(1, 9, 7, 384)).shape
        (2, 10, torch.Size([1, 9, 7, 384]))
    """

    hi_qkv: nn.Linear | None
    hi_proj: nn.Linear | None
    lo_q: nn.Linear | None
    lo_kv: nn.Linear | None
    lo_proj: nn.Linear | None

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int = 2,
        alpha: float = 0.9,
        *,
        nearest_split: bool = False,
        pad_input: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.window = check_count("window", window)
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        self.alpha, self.pad_input = alpha, pad_input
        low = round(heads * alpha) if nearest_split else int(heads * alpha)
        self.low = heads if window == 1 else low
        self.high = heads - self.low
        high_dim, low_dim = self.high * self.head_dim, self.low * self.head_dim
        self.hi_qkv = nn.Linear(dim, 3 * high_dim, bias=qkv_bias) if self.high else None
        self.hi_proj = nn.Linear(high_dim, high_dim) if self.high else None
        self.lo_q = nn.Linear(dim, low_dim, bias=qkv_bias) if self.low else None
        self.lo_kv = nn.Linear(dim, 2 * low_dim, bias=qkv_bias) if self.low else None
        self.lo_proj = nn.Linear(low_dim, low_dim) if self.low else None

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        cell = (self.window, self.window)
        scale = self.head_dim**-0.5
        plans = []
        if self.hi_qkv is not None:
            whole = fill(x, cell) if self.pad_input else x
            query, key, value = self.hi_qkv(whole).unflatten(-1, (3, self.high, -1)).unbind(-3)
            plans.append(Plan(query, key, value, Blocks(self.window), scale))
        if self.lo_q is not None and self.lo_kv is not None:
            query = self.lo_q(x).unflatten(-1, (self.low, -1))
            means = x if self.window == 1 else pool(x, cell, count_padding=self.pad_input)
            key, value = self.lo_kv(means).unflatten(-1, (2, self.low, -1)).unbind(-3)
            tokens = None if self.pad_input else (x.shape[1], x.shape[2])
            plans.append(Plan(query, key, value, Full(), scale, cell=cell, tokens=tokens))
        return tuple(plans)

    def head_kinds(self) -> tuple[str, ...]:
        return ("high",) * self.high + ("low",) * self.low if self.high and self.low else ()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        # Both kinds are joined once, behind their projections.
        return self._joined([self.outputs(x, (plan,)) for plan in self._checked(x)])

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        del x, plans
        return self._joined([part for part in (out[..., : self.high, :], out[..., self.high :, :]) if part.shape[-2]])

    def _joined(self, kinds: list[Tensor]) -> Tensor:
        projections = [proj for proj in (self.hi_proj, self.lo_proj) if proj is not None]
        mixed = [proj(part.flatten(-2)) for proj, part in zip(projections, kinds, strict=True)]
        return self.proj_drop(mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=-1))

    def extra_repr(self) -> str:
        kinds = f"high={self.high}, low={self.low}"
        return f"{self.dim}, heads={self.heads}, {kinds}, window={self.window}, pad_input={self.pad_input}"


@token_mixer("hilo")
@dataclass(frozen=True)
class HiLoSpec:
    """`windeye.nn.mixers.HiLoMixer`."""

    kind: ClassVar[str]
    window: int = 2
    alpha: float = 0.9
    nearest_split: bool = False
    pad_input: bool = False
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return HiLoMixer(dim, heads, **asdict(self))
