"""Attention inside windows, at rest or shifted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.nn.relative_bias import relative_bias
from windeye.patterns import Blocks
from windeye.patterns.pattern import check_axes, per_axis
from windeye.tokens import fill


class WindowMixer(TokenMixer):
    """Each token attends to the tokens of its window, with a relative bias table: a layer of Swin.

    ``out = proj(concat_h softmax(q_h k_h^T / sqrt(head_dim) + table_h[key - query]) v_h)``. A shift moves the borders;
    what Swin's cyclic shift and mask keep apart are the windows that the rim cuts.

    Args:
        dim, heads: channels, and heads that share them.
        window: rows and columns of a window. A map whose smaller side is not longer than a square window is cut into
            windows of that side, unshifted (Swin's rule); other windows are cut to the map and unshifted on each axis
            that they cover.
        shift: how far the borders are moved, below the window.
        bias_table: whether to learn ``bias_table`` [heads, 2 rows - 1, 2 columns - 1].
        pad_input: fill the map with zeros to whole windows before ``qkv``; padded keys equal the projection's bias and
            are seen, as Swin was trained on maps that do not divide. Otherwise windows at the rim are smaller.
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Differs from: Swin's files, whose table is indexed by query minus key and stored as [offsets, heads].

    Example:
        >>> import torch
        >>> WindowMixer(32, heads=4, window=4, shift=2)(torch.randn(2, 9, 7, 32)).shape
        torch.Size([2, 9, 7, 32])
    """

    attention_site = True
    bias_table: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | tuple[int, int] = 7,
        *,
        shift: int | tuple[int, int] = 0,
        bias_table: bool = True,
        pad_input: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        rows, columns = per_axis(check_axes(window, "window", 1), 2, "window")
        down, right = per_axis(check_axes(shift, "shift", 0), 2, "shift")
        if down >= rows or right >= columns:
            raise ValueError(f"shift {(down, right)} must be smaller than window {(rows, columns)} on both axes")
        self.window, self.shift = (rows, columns), (down, right)
        self.pad_input = pad_input
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.register_parameter("bias_table", relative_bias(heads, (rows, columns)) if bias_table else None)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: the bias table, where there is one."""
        return set() if self.bias_table is None else {"bias_table"}

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        pattern = self.pattern(x.shape[1], x.shape[2])
        if self.pad_input:
            rows, columns = per_axis(pattern.size, 2, "size")
            x = fill(x, (rows, columns))
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return (Plan(query, key, value, pattern, self.head_dim**-0.5, self.bias_table),)

    def pattern(self, height: int, width: int) -> Blocks:
        """The windows on a map of this size."""
        (rows, columns), (down, right) = self.window, self.shift
        # Comparisons only, whose results are constants where sizes are traced.
        if rows == columns and (height <= rows or width <= rows):
            return Blocks(min(height, width))
        if height <= rows:
            rows, down = height, 0
        if width <= columns:
            columns, right = width, 0
        return Blocks((rows, columns), (down, right))

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, window={self.window}, shift={self.shift}, pad_input={self.pad_input}"


@token_mixer("window")
@dataclass(frozen=True)
class WindowSpec:
    """`windeye.nn.mixers.WindowMixer`; with a shift it is Swin's second block."""

    kind: ClassVar[str]
    window: int | tuple[int, int] = 7
    shift: int | tuple[int, int] = 0
    bias_table: bool = True
    pad_input: bool = False
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return WindowMixer(dim, heads, **asdict(self))
