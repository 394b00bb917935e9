"""Local windows that ask a few global tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.feed_forward import FeedForward
from windeye.nn.mixer import check_count
from windeye.nn.mixers.down_sampling import GlobalDownSampling, MixInit, Pair, Resize, TokenPosition
from windeye.nn.mixers.groups import Groups
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.nn.mixers.window import WindowMixer
from windeye.patterns import Full
from windeye.tokens import absent, merge, partition


@dataclass(frozen=True, eq=False)
class FusionPlan(Plan):
    """What the queries are made of comes along: it is part of the result."""

    added: Tensor | None = None
    """What the local branch adds to the trunk."""


class MultiScaleFusionMixer(TokenMixer):
    """Attention inside windows beside learned global tokens, fused by attention of the one to the other (MAFormer).

        l = x + window(norm1(x));  local = l + feed_forward(norm2(l))
        tokens = mix(norm(x)) + resize(x)                               see `GlobalDownSampling`
        result = local - x + proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h)
                 with q = query(local), k, v = key_value(tokens)

    so that the residual of a block makes it ``local`` and what the fusion adds. Norms are its own. The linear map over
    positions is bound to ``size``.

    Args:
        dim, heads: channels, and heads that share them, in both attentions.
        size: rows and columns of the map that the linear map over positions is for.
        ratio: global tokens per token of the map.
        window, shift, bias_table: of the windows, see `windeye.nn.mixers.WindowMixer`.
        expansion: inner width of the local feed-forward part, in ``dim``.
        position, init: of the global tokens, see `GlobalDownSampling`.
        resize: "interpolate" takes maps of any size; None refuses all but ``size``.
        global_norm: whether the global branch normalises what it mixes.
        fuse_window: side of windows whose tokens ask the global tokens of their own part of the map alone, which is not
            of the paper; None asks all, ``ratio tokens^2`` pairs.
        norm_eps: of the norms.
        qkv_bias: whether projections to queries, keys and values add a bias.
        attn_drop, proj_drop: dropout of attention weights and of both projections, in training.

    Raises:
        ValueError: ``fuse_window`` does not hold whole global tokens, or as of the parts.

    Source: Wang et al., "MAFormer: A Transformer Network with Multi-scale Attention Fusion for Visual Recognition"
    (maformer spec). There is no official code: this is a re-design in which everything but the three equations above is
    an inferred choice.

    Example:
        >>> import torch
        >>> layer = MultiScaleFusionMixer(32, heads=4, size=(8, 6))
        >>> x = torch.randn(2, 8, 6, 32)
        >>> layer(x).shape, layer.look(x, (0, 0)).shape
        (torch.Size([2, 8, 6, 32]), torch.Size([2, 4, 8, 3]))
    """

    normalizes = True

    def __init__(
        self,
        dim: int,
        heads: int,
        size: int | Pair = 14,
        ratio: float = 0.5,
        *,
        window: int | Pair = 7,
        shift: int | Pair = 0,
        bias_table: bool = True,
        expansion: float = 4.0,
        position: TokenPosition = "bilinear",
        init: MixInit = "means",
        resize: Resize | None = None,
        global_norm: bool = True,
        fuse_window: int | None = None,
        norm_eps: float = 1e-6,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.norm1 = nn.LayerNorm(dim, norm_eps)
        self.window = WindowMixer(
            dim, heads, window, shift=shift, bias_table=bias_table, qkv_bias=qkv_bias,
            attn_drop=attn_drop, proj_drop=proj_drop,
        )  # fmt: skip
        self.norm2 = nn.LayerNorm(dim, norm_eps)
        self.feed_forward = FeedForward(dim, int(dim * expansion))
        self.tokens = GlobalDownSampling(
            dim, size, ratio, position=position, init=init, resize=resize, norm=global_norm, norm_eps=norm_eps
        )
        self.size = self.tokens.size
        self.query = nn.Linear(dim, dim, bias=qkv_bias)
        self.key_value = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.fuse_window = None if fuse_window is None else check_count("fuse_window", fuse_window)
        self.attention_site = fuse_window is None
        if fuse_window is not None:
            cells = tuple(share * fuse_window for share in self.tokens.shares)
            if any(side != int(side) for side in cells):
                raise ValueError(
                    f"fuse_window {fuse_window} holds {cells[0]:g} x {cells[1]:g} global tokens at ratio {ratio}; "
                    "it must hold whole ones"
                )

    def local(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """What the local branch adds to the trunk."""
        near = self.window(self.norm1(x))
        return near + self.feed_forward(self.norm2(x + near))

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        added = self.local(x)
        return (replace(self.asks(x + added, self.tokens(x)), added=added),)

    def asks(
        self, local: Float[Tensor, "batch height width dim"], tokens: Float[Tensor, "batch rows columns dim"]
    ) -> FusionPlan:
        """The attention of a map to global tokens."""
        query = self.query(local).unflatten(-1, (self.heads, -1))
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        relation = self._relation((local.shape[1], local.shape[2]), local)
        return FusionPlan(query, key, value, relation, self.head_dim**-0.5)

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        (plan,) = plans
        assert isinstance(plan, FusionPlan)
        assert plan.added is not None
        return plan.added + super().finish(out, x, plans)

    def span(self, height: int, width: int) -> tuple[float, float]:
        rows, columns = self.tokens.grid(height, width)
        return height / rows, width / columns

    def _relation(self, grid: Pair, like: Tensor) -> Full | Groups:
        if self.fuse_window is None:
            return Full()
        size = (self.fuse_window, self.fuse_window)
        down, across = self.tokens.shares
        cells = int(down * size[0]), int(across * size[1])
        hidden = absent(self.tokens.grid(*grid), cells, device=like.device)
        return Groups(
            split=lambda t: partition(t, size),
            join=lambda t: merge(t, grid),
            resample=lambda t: partition(t, cells),
            absent=None if hidden is None else hidden[None],
        )

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, size={self.size}, fuse_window={self.fuse_window}"


@token_mixer("multi_scale_fusion")
@dataclass(frozen=True)
class MultiScaleFusionSpec:
    """`windeye.nn.mixers.MultiScaleFusionMixer`; as a part of any backbone it takes maps of any size unless told not
    to."""

    kind: ClassVar[str]
    size: int | Pair = 14
    ratio: float = 0.5
    window: int | Pair = 7
    shift: int | Pair = 0
    bias_table: bool = True
    expansion: float = 4.0
    position: TokenPosition = "bilinear"
    init: MixInit = "means"
    resize: Resize | None = "interpolate"
    global_norm: bool = True
    fuse_window: int | None = None
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return MultiScaleFusionMixer(dim, heads, **asdict(self))
