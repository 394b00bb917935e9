"""NATTEN's modules: projections around na1d, na2d and na3d."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from windeye.compat.natten.checks import Bools, Ints, neighborhood_of
from windeye.compat.natten.functional import na1d, na2d, na3d


class _NeighborhoodAttention(nn.Module):
    """``proj(na(q, k, v))`` with ``q, k, v = qkv(x)``; the three public classes fix the number of token axes."""

    na_dim: ClassVar[int]

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: Ints,
        stride: Ints = 1,
        dilation: Ints = 1,
        is_causal: Bools = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be a positive multiple of num_heads {num_heads}")
        pattern = neighborhood_of(self.na_dim, kernel_size, stride, dilation, is_causal)
        self.kernel_size, self.stride = pattern.kernel_size, pattern.stride
        self.dilation, self.is_causal = pattern.dilation, pattern.is_causal
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "batch *grid embed_dim"]) -> Float[Tensor, "batch *grid embed_dim"]:
        """Attention of every token to its neighbourhood.

        Raises:
            ValueError: wrong number of axes or channels, or a grid that the window does not fit.
        """
        if x.dim() != self.na_dim + 2 or x.shape[-1] != self.embed_dim:
            raise ValueError(
                f"x must be [batch, {self.na_dim} token axes, embed_dim {self.embed_dim}], got shape {tuple(x.shape)}"
            )
        attend = (na1d, na2d, na3d)[self.na_dim - 1]
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)
        out = attend(query, key, value, self.kernel_size, self.stride, self.dilation, self.is_causal, self.scale)
        assert isinstance(out, Tensor)
        return self.proj_drop(self.proj(out.flatten(-2)))

    def extra_repr(self) -> str:
        return (
            f"head_dim={self.head_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, dilation={self.dilation}, is_causal={self.is_causal}"
        )


class NeighborhoodAttention1D(_NeighborhoodAttention):
    """Neighbourhood attention on sequences. Parameters, errors and state-dict names as in `NeighborhoodAttention2D`.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention1D(embed_dim=32, num_heads=4, kernel_size=7, is_causal=True)
        >>> layer(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    na_dim = 1


class NeighborhoodAttention2D(_NeighborhoodAttention):
    """Neighbourhood attention on maps, [batch, x, y, embed_dim] in and out.

    ``qkv``'s output is ordered (3, heads, head_dim). State-dict names: ``qkv.weight``, ``qkv.bias``, ``proj.weight``,
    ``proj.bias``. For bias tables, dropout of weights and padded small maps see `windeye.nn.NeighborhoodAttention2d`.

    Args:
        embed_dim: channels in and out, a multiple of ``num_heads``.
        num_heads: attention heads.
        kernel_size, stride, dilation, is_causal: per token axis, one value broadcasts; see `windeye.Neighborhood`.
        qkv_bias: whether ``qkv`` adds a bias.
        qk_scale: factor of the logits, default ``head_dim ** -0.5``.
        proj_drop: dropout after the output projection.

    Raises:
        ValueError: sizes do not fit; entries as in `windeye.compat.natten.na2d`.

    Differs from: NATTEN, which takes ``qk_scale=0`` for a missing scale; here it is a scale.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention2D(embed_dim=32, num_heads=4, kernel_size=(3, 5), dilation=(2, 1))
        >>> layer(torch.randn(2, 8, 12, 32)).shape
        torch.Size([2, 8, 12, 32])
        >>> sorted(layer.state_dict())
        ['proj.bias', 'proj.weight', 'qkv.bias', 'qkv.weight']
    """

    na_dim = 2


class NeighborhoodAttention3D(_NeighborhoodAttention):
    """Neighbourhood attention on volumes. Parameters, errors and state-dict names as in `NeighborhoodAttention2D`.

    Example:
        >>> import torch
        >>> layer = NeighborhoodAttention3D(32, 4, kernel_size=(2, 3, 3), is_causal=(True, False, False))
        >>> layer(torch.randn(1, 4, 6, 6, 32)).shape
        torch.Size([1, 4, 6, 6, 32])
    """

    na_dim = 3
