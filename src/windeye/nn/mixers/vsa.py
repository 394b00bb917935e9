"""Attention inside windows whose keys come from rectangles that every head moves and stretches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_divides
from windeye.nn.mixers.groups import Groups
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.nn.relative_bias import relative_bias
from windeye.patterns.pattern import check_axes, per_axis
from windeye.tokens import counts, frame, margins, merge, partition, pool, sample
from windeye.tokens.windows import Pair

OffsetDivisor = Literal["padded", "whole"]
PaddingSide = Literal["right_bottom", "symmetric"]

FADE = 30.0
"""How far a logit falls from a key that lies on the map to one that does not: exp(-30) is 1e-13."""


class VSAMixer(TokenMixer):
    """Each head of each window attends to a rectangle of its own: varied-size window attention.

    ``ox, oy, sx, sy = regress(leaky_relu(mean of the window))`` for every head. Keys and values are read, bilinearly,
    at as many places as a window has tokens::

        x = cx + (1 + sx) u + ox / columns of windows        cx, cy: centre of the window; u, v: a token's place in it
        y = cy + (1 + sy) v + oy / rows of windows           -1 and 1 are the first and last token of the padded map

    so that an offset of 1 moves by nearly half a window, a scale of 1 doubles a side, and one below -1 mirrors. What is
    read off the map is zero. Queries stay where they are, and so does the relative table: it knows cells, not places.
    With zeros in ``regress``, as it starts, it is `WindowMixer`.

    Args:
        dim, heads: channels, and heads that share them.
        window: rows and columns of a window. Maps that it does not divide, also smaller ones, are filled up with zeros
            behind the projection.
        out_dim: channels of the result; None is ``dim``.
        hide_padding: whether the logit of a key fades, by 30, with the share of it that is read off the map.
            Official weights were trained with zero keys there, which are seen.
        offset_divisor: by what offsets are divided: the number of windows on the padded map, or that of whole windows
            on the map (at least 1; the official layers of ViTAE divide by zero on a map that is smaller than a window).
        swap_divisors: divide ``ox`` by the rows of windows and ``oy`` by their columns, as the official detectors do.
        padding: fill up at the right and bottom, or by half on either side.
        scale_by_input: divide logits by the root of the heads' width in ``dim`` instead of ``out_dim``.
        zero_init: start as plain windows; otherwise as any convolution, as the official ViTAE code does.
        bias_table: whether to learn ``bias_table`` [heads, 2 rows - 1, 2 columns - 1].
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Raises:
        ValueError: ``heads`` does not divide ``dim`` and ``out_dim``, ``window`` is below 1, an unknown choice.

    Source: Zhang et al., "VSA: Learning Varied-Size Window Attention in Vision Transformers" (vsa spec). Official
    names: `transform.2` is ``regress``; ViTAE splits it into `sampling_offsets.2` and `sampling_scales.2`.

    Example:
        >>> layer = VSAMixer(32, heads=4, window=4)
        >>> layer(torch.randn(2, 9, 7, 32)).shape
        torch.Size([2, 9, 7, 32])
        >>> layer.rectangles(torch.randn(1, 8, 8, 32))[0, 0, 1, 0].round().int().tolist()
        [4, 0, 7, 3]
    """

    bias_table: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | tuple[int, int] = 7,
        *,
        out_dim: int | None = None,
        hide_padding: bool = True,
        offset_divisor: OffsetDivisor = "padded",
        swap_divisors: bool = False,
        padding: PaddingSide = "right_bottom",
        scale_by_input: bool = False,
        zero_init: bool = True,
        bias_table: bool = True,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        rows, columns = per_axis(check_axes(window, "window", 1), 2, "window")
        self.window = (rows, columns)
        self.out_dim = dim if out_dim is None else out_dim
        width = check_divides(heads, self.out_dim, "out_dim")
        self.scale = (self.head_dim if scale_by_input else width) ** -0.5
        for name, choice, choices in (
            ("offset_divisor", offset_divisor, get_args(OffsetDivisor)),
            ("padding", padding, get_args(PaddingSide)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {choice!r}")
        self.hide_padding, self.offset_divisor = hide_padding, offset_divisor
        self.swap_divisors, self.padding = swap_divisors, padding
        self.qkv = nn.Linear(dim, 3 * self.out_dim, bias=qkv_bias)
        # A convolution, so that networks that initialise all linear layers leave it as it starts.
        self.regress = nn.Conv2d(dim, 4 * heads, 1)
        if zero_init:
            for parameter in self.regress.parameters():
                nn.init.zeros_(parameter)
        self.proj = nn.Linear(self.out_dim, self.out_dim)
        self.register_parameter("bias_table", relative_bias(heads, (rows, columns)) if bias_table else None)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay: the bias table, where there is one."""
        return set() if self.bias_table is None else {"bias_table"}

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        grid = (x.shape[1], x.shape[2])
        shift, places = self._shift(grid), self.places(x)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        if self.hide_padding:
            # One more channel, of ones: what is read of it is the share of a key that lies on the map.
            key = F.pad(key, (0, 1), value=1.0)
            query = F.pad(query, (0, 1), value=FADE / self.scale)
        relation = Groups(
            split=lambda t: partition(t, self.window, shift),
            join=lambda t: merge(t, grid, shift),
            resample=lambda t: sample(_filled(t, self.window, shift), places),
        )
        return (Plan(query, key, value, relation, self.scale, self.bias_table),)

    def regression(
        self, x: Float[Tensor, "batch height width dim"]
    ) -> Float[Tensor, "batch rows columns heads ox_oy_sx_sy"]:
        """Offsets and scales, two each, of every head of every window."""
        shift = self._shift((x.shape[1], x.shape[2]))
        means = F.leaky_relu(pool(_filled(x, self.window, shift), self.window))
        return self.regress(means.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(-1, (self.heads, 4))

    def places(
        self, x: Float[Tensor, "batch height width dim"]
    ) -> Float[Tensor, "batch heads windows rows columns x_y"]:
        """Where keys are read, in the units of `windeye.tokens.sample` on the padded map; at least in float32."""
        found = self.regression(x)
        # Places in bfloat16 would be off by a fraction of a token.
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        counts = (found.shape[1], found.shape[2])
        divisors = counts
        if self.offset_divisor == "whole":
            divisors = (max(x.shape[1] // self.window[0], 1), max(x.shape[2] // self.window[1], 1))
        if self.swap_divisors:
            divisors = (divisors[1], divisors[0])
        ox, oy, sx, sy = found.unbind(-1)
        centre_y, cell_y = _axis(counts[0], self.window[0], found)
        centre_x, cell_x = _axis(counts[1], self.window[1], found)
        down = (centre_y[:, None, None] + oy / divisors[0])[..., None] + (1 + sy)[..., None] * cell_y
        across = (centre_x[:, None] + ox / divisors[1])[..., None] + (1 + sx)[..., None] * cell_x
        shape = (*down.shape, across.shape[-1])
        at = torch.stack((across[..., None, :].expand(shape), down[..., None].expand(shape)), dim=-1)
        return at.movedim(3, 1).flatten(2, 3)

    def rectangles(
        self, x: Float[Tensor, "batch height width dim"]
    ) -> Float[Tensor, "batch rows columns heads left_top_right_bottom"]:
        """The first and the last place that each head of each window reads, in tokens of the map; a window that is
        mirrored has its left to the right of its right."""
        grid = (x.shape[1], x.shape[2])
        (top, _), (left, _) = margins(grid, self.window, self._shift(grid))
        rows, columns = counts(grid, self.window)
        at = torch.unflatten(self.places(x), 2, (rows, columns)).movedim(1, 3)
        ends = torch.cat((at[..., 0, 0, :], at[..., -1, -1, :]), dim=-1)
        spans = [columns * self.window[1] - 1, rows * self.window[0] - 1] * 2
        return (ends + 1) / 2 * ends.new_tensor(spans) - ends.new_tensor([left, top] * 2)

    def window_of(self, token: Pair, grid: Pair) -> Pair:
        """Row and column of the window that a token of a map of this size is in, as `rectangles` counts them."""
        (top, _), (left, _) = margins(grid, self.window, self._shift(grid))
        return (token[0] + top) // self.window[0], (token[1] + left) // self.window[1]

    def _shift(self, grid: Pair) -> Pair:
        """Where the borders of windows lie, so that the rim is filled up as it should be."""
        if self.padding == "right_bottom":
            return (0, 0)
        rows, columns = ((-(-n % size // 2)) % size for n, size in zip(grid, self.window, strict=True))
        return (rows, columns)

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, window={self.window}, hide_padding={self.hide_padding}"


def _axis(count: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of ``count`` windows, and places of the cells of one around its centre, between -1 and 1."""
    step = 2 / max(count * size - 1, 1)
    index = torch.arange(max(count, size), device=like.device, dtype=like.dtype)
    middle = (size - 1) / 2
    return step * (index[:count] * size + middle) - 1, step * (index[:size] - middle)


def _filled(x: Float[Tensor, "batch height width *rest"], size: Pair, shift: Pair) -> Tensor:
    """The map with zeros around it, up to whole windows."""
    return frame(x, margins((x.shape[1], x.shape[2]), size, shift))


@token_mixer("vsa")
@dataclass(frozen=True)
class VSASpec:
    """`windeye.nn.mixers.VSAMixer`."""

    kind: ClassVar[str]
    window: int | tuple[int, int] = 7
    hide_padding: bool = True
    offset_divisor: OffsetDivisor = "padded"
    swap_divisors: bool = False
    padding: PaddingSide = "right_bottom"
    zero_init: bool = True
    bias_table: bool = True
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return VSAMixer(dim, heads, **asdict(self))
