"""Multi-head neighbourhood attention with its projections, for sequences, maps and volumes."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.relative_bias import BIAS_STD
from windeye.nn.sited import sited
from windeye.patterns import Neighborhood
from windeye.patterns.pattern import Axes, is_int, per_axis
from windeye.patterns.windows import WHOLE_AXIS

SmallMap = Literal["refuse", "pad"]
SMALL_MAPS = ("refuse", "pad")


class _NeighborhoodAttention(nn.Module):
    """``proj(attend(qkv(x), Neighborhood(...)))``; the three public classes fix the number of grid axes."""

    attention_site = True
    rank: ClassVar[int]
    rpb: nn.Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: Axes,
        *,
        stride: Axes = 1,
        dilation: Axes = 1,
        is_causal: bool | tuple[bool, ...] = False,
        qkv_bias: bool = True,
        bias_table: bool = False,
        scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        small_map: SmallMap = "refuse",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        _check_heads(embed_dim, num_heads)
        _check_drop("attn_drop", attn_drop)
        _check_drop("proj_drop", proj_drop)
        if scale is not None:
            _check_number("scale", scale)
        if small_map not in SMALL_MAPS:
            raise ValueError(f"small_map must be one of {SMALL_MAPS}, got {small_map!r}")
        self.pattern = Neighborhood(kernel_size, stride=stride, dilation=dilation, is_causal=is_causal)
        for name in ("kernel_size", "stride", "dilation", "is_causal"):
            per_axis(getattr(self.pattern, name), self.rank, name)
        if bias_table:
            self._check_table()

        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.scale = scale
        self.attn_drop = float(attn_drop)
        self.small_map = small_map
        self.backend = backend
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(proj_drop)
        if bias_table:
            windows = per_axis(self.pattern.kernel_size, self.rank, "kernel_size")
            self.rpb = nn.Parameter(torch.empty(num_heads, *(2 * window - 1 for window in windows)))
        else:
            self.register_parameter("rpb", None)
        self.reset_parameters()

    def _check_table(self) -> None:
        if any(per_axis(self.pattern.is_causal, self.rank, "is_causal")):
            raise ValueError(
                f"bias_table has no causal form, got is_causal={self.pattern.is_causal}; "
                f"use bias_table=False or is_causal=False"
            )
        if WHOLE_AXIS in per_axis(self.pattern.kernel_size, self.rank, "kernel_size"):
            raise ValueError(
                f"bias_table needs a kernel_size in keys on every axis, got {self.pattern.kernel_size}; "
                f"-1 leaves the size of the table open"
            )

    def reset_parameters(self) -> None:
        """Fresh weights: torch's defaults for the projections, a truncated normal of std 0.02 for the bias table."""
        self.qkv.reset_parameters()
        self.proj.reset_parameters()
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=BIAS_STD)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: the bias table, where there is one."""
        return set() if self.rpb is None else {"rpb"}

    def forward(self, x: Float[Tensor, "batch *grid embed_dim"]) -> Float[Tensor, "batch *grid embed_dim"]:
        """Attention of every token to its neighbourhood.

        Args:
            x: tokens on their grid, channels last.

        Raises:
            ValueError: wrong number of axes or channels, or a grid that the window does not fit (with
                ``small_map="refuse"``); names the axis and the values.
        """
        if x.dim() != self.rank + 2:
            raise ValueError(
                f"x must be [batch, {self.rank} grid axes, embed_dim {self.embed_dim}], got shape {tuple(x.shape)}"
            )
        if x.shape[-1] != self.embed_dim:
            raise ValueError(f"x has {x.shape[-1]} channels but embed_dim is {self.embed_dim}")
        grid = x.shape[1:-1]
        query, key, value = self.project(x)
        out = sited(
            self,
            query,
            key,
            value,
            self.pattern,
            scale=self.scale,
            bias=self.rpb,
            dropout_p=self.attn_drop if self.training else 0.0,
            backend=self.backend,
        ).flatten(-2)
        for axis, length in enumerate(grid, start=1):
            out = out.narrow(axis, 0, length)
        return self.proj_drop(self.proj(out))

    def project(self, x: Float[Tensor, "batch *grid embed_dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, *grid, num_heads, head_dim], on the padded grid where ``small_map`` pads."""
        query, key, value = self.qkv(self._padded(x)).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)
        return query, key, value

    def _padded(self, x: Tensor) -> Tensor:
        """Zeros at the far end of every axis that is shorter than its dilated window (legacy rule, fna spec)."""
        if self.small_map != "pad":
            return x
        windows = per_axis(self.pattern.kernel_size, self.rank, "kernel_size")
        dilations = per_axis(self.pattern.dilation, self.rank, "dilation")
        missing = [
            0 if window == WHOLE_AXIS else max(0, window * dilation - length)
            for window, dilation, length in zip(windows, dilations, x.shape[1:-1], strict=True)
        ]
        if not any(missing):
            return x
        # F.pad counts from the last axis, which is the channels.
        return F.pad(x, [0, 0, *(amount for gap in reversed(missing) for amount in (0, gap))])

    def extra_repr(self) -> str:
        shown = [str(self.embed_dim), f"num_heads={self.num_heads}", self.pattern.spec]
        if self.rpb is not None:
            shown.append("bias_table=True")
        if self.scale is not None:
            shown.append(f"scale={self.scale}")
        if self.attn_drop:
            shown.append(f"attn_drop={self.attn_drop}")
        if self.small_map != "refuse":
            shown.append(f"small_map={self.small_map!r}")
        if self.backend != "auto":
            shown.append(f"backend={self.backend!r}")
        return ", ".join(shown)


class NeighborhoodAttention1d(_NeighborhoodAttention):
    """Multi-head neighbourhood attention on sequences: ``[batch, length, embed_dim]`` in and out.

    ``out = proj(concat_h softmax(scale q_h k_h^T + rpb_h over the window) v_h)`` with ``q, k, v = qkv(x)``; the window
    of each token is `windeye.Neighborhood`. Parameters, errors and state-dict names as in `NeighborhoodAttention2d`.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention1d(32, num_heads=4, kernel_size=7, is_causal=True)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    rank = 1


class NeighborhoodAttention2d(_NeighborhoodAttention):
    """Multi-head neighbourhood attention on maps: ``[batch, height, width, embed_dim]`` in and out.

    ``out = proj(concat_h softmax(scale q_h k_h^T + rpb_h over the window) v_h)`` with ``q, k, v = qkv(x)``; the window
    of each token is `windeye.Neighborhood`. ``qkv``'s output is ordered (3, heads, head_dim). State-dict names are
    those of NAT and DiNAT checkpoints: ``qkv.weight``, ``qkv.bias``, ``proj.weight``, ``proj.bias``, ``rpb``.

    Args:
        embed_dim: channels in and out, a multiple of ``num_heads``.
        num_heads: attention heads.
        kernel_size: keys per axis, an integer or one per axis; -1 is the whole axis.
        stride: queries that share a window.
        dilation: distance between the keys of a window.
        is_causal: per axis, whether keys after the query are hidden.
        qkv_bias: whether ``qkv`` adds a bias.
        bias_table: whether to learn ``rpb`` [heads, 2 kernel_size - 1 per axis], added to the logit of a key by its
            offset from the query (called ``rel_pos_bias`` in NATTEN). It starts as a truncated normal of std 0.02.
        scale: factor of the logits, default ``head_dim ** -0.5``.
        attn_drop: probability of dropping an attention weight, in training mode only.
        proj_drop: dropout after the output projection.
        small_map: what to do with a grid shorter than ``kernel_size * dilation``: "refuse" it, or "pad" it as NAT and
            DiNAT were trained: the input gets zeros at its right and bottom before ``qkv``, so that padded keys and
            values equal the projection's bias and are seen; the result is cropped before ``proj``.
        backend: see `windeye.attend`.

    Raises:
        ValueError, TypeError: sizes, probabilities or options do not fit; a bias table with ``is_causal`` or -1.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention2d(32, num_heads=4, kernel_size=7, dilation=2, bias_table=True)
        >>> layer(torch.randn(2, 14, 20, 32)).shape
        torch.Size([2, 14, 20, 32])
        >>> sorted(layer.state_dict())
        ['proj.bias', 'proj.weight', 'qkv.bias', 'qkv.weight', 'rpb']
    """

    rank = 2


class NeighborhoodAttention3d(_NeighborhoodAttention):
    """Multi-head neighbourhood attention on volumes or video: ``[batch, depth, height, width, embed_dim]`` in and out.

    ``out = proj(concat_h softmax(scale q_h k_h^T + rpb_h over the window) v_h)`` with ``q, k, v = qkv(x)``; the window
    of each token is `windeye.Neighborhood`. Parameters, errors and state-dict names as in `NeighborhoodAttention2d`.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention3d(32, num_heads=4, kernel_size=(2, 5, 5), is_causal=(True, False, False))
        >>> layer(torch.randn(1, 4, 6, 6, 32)).shape
        torch.Size([1, 4, 6, 6, 32])
    """

    rank = 3


def _check_heads(embed_dim: int, num_heads: int) -> None:
    for name, value in (("embed_dim", embed_dim), ("num_heads", num_heads)):
        if not is_int(value):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim {embed_dim} must be a multiple of num_heads {num_heads}")


def _check_drop(name: str, value: float) -> None:
    _check_number(name, value)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
