"""Few tokens from all tokens of a map, by a linear map over positions."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.tokens import mix, resize

Pair = tuple[int, int]
TokenPosition = Literal["bilinear", "embed", "none"]
MixInit = Literal["means", "trunc"]
Resize = Literal["interpolate"]

INIT_STD = 0.02


class GlobalDownSampling(nn.Module):
    """``mix(norm(x)) + resize(x)``: every global token is a learned sum over all positions, the same for all channels,
    beside the map made smaller (global learning with down-sampling).

    The weights belong to one size of map. A map of another size is refused, or, with ``resize``, made bilinearly to
    that size, mixed, and the tokens made to the grid of its own; that is a bilinear interpolation of the weights in
    both pairs of axes (at the rim up to the half of a tent that lies outside), whose rows keep their sums, so that
    constant maps stay constant.

    Args:
        dim: channels.
        size: rows and columns of the map that the weights are for.
        ratio: global tokens per token, in (0, 1]. Every factor of four halves the rows, and the columns take the rest;
            both round up. Half is all rows and half of the columns.
        position: what is added to the learned sums: the map, resized bilinearly; a learned table; or nothing.
        init: "means" starts as the mean over the tokens of a cell, and noise that adds ``INIT_STD`` to tokens of
            variance 1; "trunc" as any linear map.
        resize: "interpolate" takes maps of any size; None refuses all but ``size``.
        norm: whether what is mixed is normalised first.
        norm_eps: of that norm.

    Raises:
        ValueError: a size below 1, ``ratio`` outside of (0, 1], an unknown choice.

    Source: Wang et al., "MAFormer" (maformer spec); no official code. All but the linear map is an inferred choice.

    Example:
        >>> layer = GlobalDownSampling(16, size=(8, 6))
        >>> layer(torch.randn(2, 8, 6, 16)).shape, sum(p.numel() for p in (layer.weight, layer.bias))
        (torch.Size([2, 8, 3, 16]), 1176)
    """

    table: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        size: int | Pair,
        ratio: float = 0.5,
        *,
        position: TokenPosition = "bilinear",
        init: MixInit = "means",
        resize: Resize | None = None,
        norm: bool = True,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.size = check_count("size", height), check_count("size", width)
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}")
        for name, choice, choices in (
            ("position", position, get_args(TokenPosition)),
            ("init", init, get_args(MixInit)),
            ("resize", resize, (None, *get_args(Resize))),
        ):
            if choice not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {choice!r}")
        self.shares = shares(ratio)
        self.position, self.init, self.resize = position, init, resize
        self.norm = nn.LayerNorm(dim, norm_eps) if norm else None
        rows, columns = self.grid(*self.size)
        self.weight = nn.Parameter(torch.empty(rows, columns, *self.size))
        self.bias = nn.Parameter(torch.zeros(rows, columns))
        if position == "embed":
            self.table = nn.Parameter(torch.empty(rows, columns, dim))
            nn.init.trunc_normal_(self.table, std=INIT_STD)
        else:
            self.register_parameter("table", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The linear map as it starts."""
        nn.init.zeros_(self.bias)
        if self.init == "trunc":
            nn.init.trunc_normal_(self.weight, std=INIT_STD)
            return
        rows, columns, height, width = self.weight.shape
        nn.init.trunc_normal_(self.weight, std=INIT_STD * (height * width) ** -0.5)
        with torch.no_grad():
            down, across = (
                F.adaptive_avg_pool1d(torch.eye(n, dtype=self.weight.dtype, device=self.weight.device), few).mT
                for n, few in ((height, rows), (width, columns))
            )
            self.weight.add_(down[:, None, :, None] * across[None, :, None, :])

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: biases, and the table where there is one."""
        return {"bias"} | (set() if self.table is None else {"table"})

    def grid(self, height: int, width: int) -> Pair:
        """Rows and columns of the global tokens of such a map."""
        down, across = self.shares
        return math.ceil(down * height), math.ceil(across * width)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns dim"]:
        """
        Raises:
            ValueError: the map has another size, and ``resize`` is None.
        """
        size = (x.shape[1], x.shape[2])
        if self.resize is None and size != self.size:
            raise ValueError(
                f"x has {size[0]} x {size[1]} tokens, but the weights over positions are for {self.size[0]} x "
                f'{self.size[1]}; resize="interpolate" takes any size'
            )
        grid = self.grid(*size)
        tokens = resize(x if self.norm is None else self.norm(x), self.size, antialias=True)
        tokens = mix(tokens[..., None, :], self.weight.flatten(2).flatten(0, 1))[..., 0, :]
        tokens = torch.unflatten(tokens, 1, self.weight.shape[:2]) + self.bias[..., None]
        if self.table is not None:
            tokens = tokens + self.table
        tokens = resize(tokens, grid, antialias=True)
        return tokens + resize(x, grid) if self.position == "bilinear" else tokens

    def extra_repr(self) -> str:
        return f"size={self.size}, position={self.position!r}, resize={self.resize!r}"


def shares(ratio: float) -> tuple[float, float]:
    """The shares of rows and of columns that are kept.

    Example:
        >>> [shares(ratio) for ratio in (1, 0.5, 0.25, 0.125, 0.75)]
        [(1.0, 1.0), (1.0, 0.5), (0.5, 0.5), (0.5, 0.25), (1.0, 0.75)]
    """
    rows = 0.5 ** math.floor(-math.log2(ratio) / 2)
    return rows, ratio / rows


def interpolated(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``weight``, ``bias`` or ``table`` for another size: with them a layer of that size does what this one does by
    ``resize="interpolate"``.

    Args:
        tensor: [rows, columns, height, width], or [rows, columns, *any].
        shape: of the result.

    Example:
        >>> interpolated(torch.ones(4, 2, 4, 4), (8, 4, 8, 8)).sum((2, 3)).unique()
        tensor([16.])
    """
    flat = tensor.reshape(1, *tensor.shape[:2], -1)
    out = resize(flat, (shape[0], shape[1]), antialias=True).reshape(*shape[:2], *tensor.shape[2:])
    if tensor.dim() < 4:
        return out
    # Every token of the larger map, seen on the smaller one, axis by axis.
    down, across = (
        resize(torch.eye(new, dtype=out.dtype, device=out.device).reshape(new, new, 1, 1), (old, 1), antialias=True)
        for new, old in zip(shape[2:], tensor.shape[2:], strict=True)
    )
    return torch.einsum("abyx,iy,jx->abij", out, down.flatten(1), across.flatten(1))
