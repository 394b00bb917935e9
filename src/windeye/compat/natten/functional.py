"""na1d, na2d and na3d: NATTEN's functions with NATTEN's parameters and windeye's kernels, on any device."""

# ruff: noqa: ARG001 - NATTEN's parameters that choose among its kernels
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from windeye.compat.natten.attention import attention, merge_attentions
from windeye.compat.natten.backends import FNA_BACKENDS, attend_on
from windeye.compat.natten.checks import (
    TILE_SHAPES,
    TILE_SIZES,
    Bools,
    Ints,
    check_additional,
    check_attention_tensors,
    check_schedule,
    check_tile_shape,
    check_tile_size,
    neighborhood_of,
)
from windeye.compat.natten.legacy import (
    na1d_av,
    na1d_qk,
    na2d_av,
    na2d_qk,
    na3d_av,
    na3d_qk,
    natten1dav,
    natten1dqkrpb,
    natten2dav,
    natten2dqkrpb,
    natten3dav,
    natten3dqkrpb,
)

__all__ = [
    "attention",
    "merge_attentions",
    "na1d",
    "na1d_av",
    "na1d_qk",
    "na2d",
    "na2d_av",
    "na2d_qk",
    "na3d",
    "na3d_av",
    "na3d_qk",
    "natten1dav",
    "natten1dqkrpb",
    "natten2dav",
    "natten2dqkrpb",
    "natten3dav",
    "natten3dqkrpb",
]

Result = Tensor | tuple[Tensor, Tensor]
_KWARGS = {
    *TILE_SIZES,
    "backend",
    "backward_use_pt_reduction",
    "kernel_schedule",
    "run_persistent_kernel",
    "torch_compile",
}


def na1d(
    query: Float[Tensor, "batch x heads head_dim"],
    key: Float[Tensor, "batch x kv_heads head_dim"],
    value: Float[Tensor, "batch x kv_heads value_dim"],
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Float[Tensor, "batch extra kv_heads head_dim"] | None = None,
    additional_values: Float[Tensor, "batch extra kv_heads value_dim"] | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    q_tile_shape: tuple[int, ...] | None = None,
    kv_tile_shape: tuple[int, ...] | None = None,
    backward_q_tile_shape: tuple[int, ...] | None = None,
    backward_kv_tile_shape: tuple[int, ...] | None = None,
    backward_kv_splits: tuple[int, ...] | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: str | None = None,
    torch_compile: bool = False,
    return_lse: bool = False,
) -> Result:
    """Neighbourhood attention on sequences. Parameters, errors and differences as in `na2d`.

    Example:
        >>> import torch
        >>> q = k = v = torch.randn(1, 20, 4, 8)
        >>> na1d(q, k, v, kernel_size=5, stride=2, is_causal=True).shape
        torch.Size([1, 20, 4, 8])
    """
    tiles = (q_tile_shape, kv_tile_shape, backward_q_tile_shape, backward_kv_tile_shape, backward_kv_splits)
    return _neighborhood_attention(
        1, query, key, value, (kernel_size, stride, dilation, is_causal), scale, additional_keys, additional_values,
        attention_kwargs, backend, tiles, kernel_schedule, return_lse,
    )  # fmt: skip


def na2d(
    query: Float[Tensor, "batch x y heads head_dim"],
    key: Float[Tensor, "batch x y kv_heads head_dim"],
    value: Float[Tensor, "batch x y kv_heads value_dim"],
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Float[Tensor, "batch extra kv_heads head_dim"] | None = None,
    additional_values: Float[Tensor, "batch extra kv_heads value_dim"] | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    q_tile_shape: tuple[int, ...] | None = None,
    kv_tile_shape: tuple[int, ...] | None = None,
    backward_q_tile_shape: tuple[int, ...] | None = None,
    backward_kv_tile_shape: tuple[int, ...] | None = None,
    backward_kv_splits: tuple[int, ...] | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: str | None = None,
    torch_compile: bool = False,
    return_lse: bool = False,
) -> Result:
    """Neighbourhood attention on maps: every query attends to the window of keys around it.

    Args:
        query, key, value: heads last, on one grid; ``kv_heads`` divides ``heads``.
        kernel_size, stride, dilation, is_causal: per token axis, one value broadcasts; see `windeye.Neighborhood`.
        scale: factor of the logits, default ``head_dim ** -0.5``.
        additional_keys, additional_values: tokens that every query sees besides its window; both or neither.
        attention_kwargs: performance parameters of `attention` for the additional tokens; checked. A backend in them
            must be the one that ``backend`` names.
        backend: None or "flex-fna"; other names are refused, see `windeye.compat.natten.backends`.
        q_tile_shape ... torch_compile: choices among NATTEN's kernels. Checked, without effect: no result of NATTEN
            depends on them, and windeye plans its own tiles.
        return_lse: also return the log-sum-exp of each row, [batch, x, y, heads], float32 (float64 for float64).

    Raises:
        ValueError: ranks or shapes differ; kernel_size below 2, stride or dilation below 1, stride above kernel_size,
            kernel_size * dilation above the length of an axis; entries that are no integers or not one per axis.
        TypeError: a dtype that `windeye.attend` does not know.
        NotImplementedError: a backend that windeye cannot honour.

    Differs from: NATTEN, which takes ``scale=0`` for a missing scale; here it is a scale. Any dtype that
    `windeye.attend` knows and any head dim will do. Tensors of the wrong rank are refused by each function.

    Example:
        >>> import torch
        >>> q = k = v = torch.randn(1, 8, 12, 4, 8)
        >>> out, lse = na2d(q, k, v, kernel_size=(3, 5), dilation=(2, 1), return_lse=True)
        >>> out.shape, lse.shape
        (torch.Size([1, 8, 12, 4, 8]), torch.Size([1, 8, 12, 4]))
    """
    tiles = (q_tile_shape, kv_tile_shape, backward_q_tile_shape, backward_kv_tile_shape, backward_kv_splits)
    return _neighborhood_attention(
        2, query, key, value, (kernel_size, stride, dilation, is_causal), scale, additional_keys, additional_values,
        attention_kwargs, backend, tiles, kernel_schedule, return_lse,
    )  # fmt: skip


def na3d(
    query: Float[Tensor, "batch x y z heads head_dim"],
    key: Float[Tensor, "batch x y z kv_heads head_dim"],
    value: Float[Tensor, "batch x y z kv_heads value_dim"],
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Float[Tensor, "batch extra kv_heads head_dim"] | None = None,
    additional_values: Float[Tensor, "batch extra kv_heads value_dim"] | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    q_tile_shape: tuple[int, ...] | None = None,
    kv_tile_shape: tuple[int, ...] | None = None,
    backward_q_tile_shape: tuple[int, ...] | None = None,
    backward_kv_tile_shape: tuple[int, ...] | None = None,
    backward_kv_splits: tuple[int, ...] | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: str | None = None,
    torch_compile: bool = False,
    return_lse: bool = False,
) -> Result:
    """Neighbourhood attention on volumes or video. Parameters, errors and differences as in `na2d`.

    Example:
        >>> import torch
        >>> q = k = v = torch.randn(1, 4, 6, 6, 2, 8)
        >>> na3d(q, k, v, kernel_size=(2, 3, 3), is_causal=(True, False, False)).shape
        torch.Size([1, 4, 6, 6, 2, 8])
    """
    tiles = (q_tile_shape, kv_tile_shape, backward_q_tile_shape, backward_kv_tile_shape, backward_kv_splits)
    return _neighborhood_attention(
        3, query, key, value, (kernel_size, stride, dilation, is_causal), scale, additional_keys, additional_values,
        attention_kwargs, backend, tiles, kernel_schedule, return_lse,
    )  # fmt: skip


def _neighborhood_attention(
    rank: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: tuple[object, object, object, object],
    scale: float | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    attention_kwargs: Mapping[str, Any] | None,
    backend: str | None,
    tiles: tuple[object, ...],
    kernel_schedule: str | None,
    return_lse: bool,
) -> Result:
    check_attention_tensors(query, key, value, rank=rank, same_grid=True)
    extra_kv = check_additional(key, value, additional_keys, additional_values)
    pattern = neighborhood_of(rank, *window)
    for name, shape in zip(TILE_SHAPES, tiles, strict=True):
        check_tile_shape(name, shape, rank)
    check_schedule(kernel_schedule)

    _check_attention_kwargs(attention_kwargs or {}, backend)
    return attend_on(
        backend, FNA_BACKENDS, query, key, value, pattern, scale=scale, return_lse=return_lse, extra_kv=extra_kv
    )


def _check_attention_kwargs(kwargs: Mapping[str, Any], backend: str | None) -> None:
    """Performance parameters only, and no backend of their own: both branches of one call run on one backend."""
    unknown = sorted(set(kwargs) - _KWARGS)
    if unknown:
        raise ValueError(f"attention_kwargs may hold {sorted(_KWARGS)}, got {unknown}")
    for name in TILE_SIZES:
        check_tile_size(f"attention_kwargs[{name!r}]", kwargs.get(name))
    check_schedule(kwargs.get("kernel_schedule"))
    matching = None if backend is None else backend.replace("-fna", "-fmha")
    if kwargs.get("backend") not in (None, matching):
        raise NotImplementedError(
            f"attention_kwargs names backend {kwargs['backend']!r} but the call names {backend!r}; "
            f"windeye runs both branches on one backend, name it in both places or in neither"
        )
