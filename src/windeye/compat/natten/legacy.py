"""The unfused operators that NATTEN had until 0.17: logits of a neighbourhood, and its weighted values.

Tensors are heads first, [batch, heads, *grid, head_dim]. The last axis of logits and weights counts the keys of the
window row-major, after them the additional tokens. Logits are not scaled: callers scale the query. These are plain
gathers, differentiable to any order, and need memory for every key of every window; `windeye.attend` does not.

Causal windows see fewer keys near the start of an axis. As in NATTEN their missing keys come last, in place of the
window's keys after the query, with logit -inf and whatever weight ignored.

Functions named ``natten...`` are the same by the names that they had before 0.17, which models of transformers call.

Differs from: NATTEN 0.17, which took odd windows only.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from windeye.compat.natten.checks import Bools, Ints, neighborhood_of
from windeye.patterns import Neighborhood
from windeye.patterns.pattern import per_axis
from windeye.patterns.table import Ints as Indices


def na1d_qk(
    query: Float[Tensor, "batch heads x head_dim"],
    key: Float[Tensor, "batch heads x head_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_keys: Float[Tensor, "batch heads extra head_dim"] | None = None,
    is_causal: Bools | None = False,
    rpb: Float[Tensor, "heads offsets"] | None = None,
) -> Float[Tensor, "batch heads x weights"]:
    """Logits of every window on a sequence. Parameters and errors as in `na2d_qk`.

    Example:
        >>> q = k = torch.randn(1, 4, 10, 8)
        >>> na1d_qk(q, k, kernel_size=5).shape
        torch.Size([1, 4, 10, 5])
    """
    return _qk(1, query, key, kernel_size, dilation, additional_keys, is_causal, rpb)


def na1d_av(
    attn: Float[Tensor, "batch heads x weights"],
    value: Float[Tensor, "batch heads x value_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_values: Float[Tensor, "batch heads extra value_dim"] | None = None,
    is_causal: Bools | None = False,
) -> Float[Tensor, "batch heads x value_dim"]:
    """Weighted values of every window on a sequence. Parameters and errors as in `na2d_av`."""
    return _av(1, attn, value, kernel_size, dilation, additional_values, is_causal)


def na2d_qk(
    query: Float[Tensor, "batch heads x y head_dim"],
    key: Float[Tensor, "batch heads x y head_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_keys: Float[Tensor, "batch heads extra head_dim"] | None = None,
    is_causal: Bools | None = False,
    rpb: Float[Tensor, "heads offsets_x offsets_y"] | None = None,
) -> Float[Tensor, "batch heads x y weights"]:
    """Logits of every window on a map: ``<query, key> + rpb`` for the n-th key of the window.

    Args:
        query, key: heads first, of one shape. Scale the query before.
        kernel_size, dilation, is_causal: per axis, one value broadcasts; see `windeye.Neighborhood`.
        additional_keys: tokens that every query sees besides its window; their logits come last.
        rpb: relative position bias [heads, 2 kernel_size - 1 per axis]. A key ``j`` steps from its query takes entry
            ``j + kernel_size - 1`` (fna spec).

    Raises:
        ValueError: shapes differ, or a window that does not fit; names the argument and the values.
        NotImplementedError: ``rpb`` with ``is_causal``, as in NATTEN.

    Example:
        >>> q, k, v = torch.randn(3, 1, 4, 7, 9, 8).unbind(0)
        >>> logits = na2d_qk(q * 8**-0.5, k, kernel_size=3, dilation=2)
        >>> na2d_av(logits.softmax(-1), v, kernel_size=3, dilation=2).shape
        torch.Size([1, 4, 7, 9, 8])
    """
    return _qk(2, query, key, kernel_size, dilation, additional_keys, is_causal, rpb)


def na2d_av(
    attn: Float[Tensor, "batch heads x y weights"],
    value: Float[Tensor, "batch heads x y value_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_values: Float[Tensor, "batch heads extra value_dim"] | None = None,
    is_causal: Bools | None = False,
) -> Float[Tensor, "batch heads x y value_dim"]:
    """Weighted values of every window on a map: the sum over n of ``attn[n]`` times the n-th value of the window.

    Args:
        attn: weights, in the order in which `na2d_qk` gives logits.
        value: heads first, on the grid of ``attn``.
        kernel_size, dilation, is_causal: as given to `na2d_qk`.
        additional_values: values of the additional tokens.

    Raises:
        ValueError: shapes differ, or a window that does not fit; names the argument and the values.
    """
    return _av(2, attn, value, kernel_size, dilation, additional_values, is_causal)


def na3d_qk(
    query: Float[Tensor, "batch heads x y z head_dim"],
    key: Float[Tensor, "batch heads x y z head_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_keys: Float[Tensor, "batch heads extra head_dim"] | None = None,
    is_causal: Bools | None = False,
    rpb: Float[Tensor, "heads offsets_x offsets_y offsets_z"] | None = None,
) -> Float[Tensor, "batch heads x y z weights"]:
    """Logits of every window on a volume. Parameters and errors as in `na2d_qk`."""
    return _qk(3, query, key, kernel_size, dilation, additional_keys, is_causal, rpb)


def na3d_av(
    attn: Float[Tensor, "batch heads x y z weights"],
    value: Float[Tensor, "batch heads x y z value_dim"],
    kernel_size: Ints,
    dilation: Ints = 1,
    additional_values: Float[Tensor, "batch heads extra value_dim"] | None = None,
    is_causal: Bools | None = False,
) -> Float[Tensor, "batch heads x y z value_dim"]:
    """Weighted values of every window on a volume. Parameters and errors as in `na2d_av`."""
    return _av(3, attn, value, kernel_size, dilation, additional_values, is_causal)


def natten1dqkrpb(
    query: Float[Tensor, "batch heads x head_dim"],
    key: Float[Tensor, "batch heads x head_dim"],
    rpb: Float[Tensor, "heads offsets"] | None,
    kernel_size: int,
    dilation: int,
) -> Float[Tensor, "batch heads x weights"]:
    """`na1d_qk` by its older name and order of arguments."""
    return na1d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten1dav(
    attn: Float[Tensor, "batch heads x weights"],
    value: Float[Tensor, "batch heads x value_dim"],
    kernel_size: int,
    dilation: int,
) -> Float[Tensor, "batch heads x value_dim"]:
    """`na1d_av` by its older name."""
    return na1d_av(attn, value, kernel_size, dilation)


def natten2dqkrpb(
    query: Float[Tensor, "batch heads x y head_dim"],
    key: Float[Tensor, "batch heads x y head_dim"],
    rpb: Float[Tensor, "heads offsets_x offsets_y"] | None,
    kernel_size: int,
    dilation: int,
) -> Float[Tensor, "batch heads x y weights"]:
    """`na2d_qk` by its older name and order of arguments.

    Example:
        >>> q = k = torch.randn(1, 4, 7, 9, 8)
        >>> natten2dqkrpb(q, k, torch.zeros(4, 5, 5), 3, 1).shape
        torch.Size([1, 4, 7, 9, 9])
    """
    return na2d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten2dav(
    attn: Float[Tensor, "batch heads x y weights"],
    value: Float[Tensor, "batch heads x y value_dim"],
    kernel_size: int,
    dilation: int,
) -> Float[Tensor, "batch heads x y value_dim"]:
    """`na2d_av` by its older name."""
    return na2d_av(attn, value, kernel_size, dilation)


def natten3dqkrpb(
    query: Float[Tensor, "batch heads x y z head_dim"],
    key: Float[Tensor, "batch heads x y z head_dim"],
    rpb: Float[Tensor, "heads offsets_x offsets_y offsets_z"] | None,
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
) -> Float[Tensor, "batch heads x y z weights"]:
    """`na3d_qk` by its older name and order of arguments; the first axis has a window and a dilation of its own."""
    window, steps = (kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation)
    return na3d_qk(query, key, window, steps, rpb=rpb)


def natten3dav(
    attn: Float[Tensor, "batch heads x y z weights"],
    value: Float[Tensor, "batch heads x y z value_dim"],
    kernel_size_d: int,
    kernel_size: int,
    dilation_d: int,
    dilation: int,
) -> Float[Tensor, "batch heads x y z value_dim"]:
    """`na3d_av` by its older name."""
    return na3d_av(attn, value, (kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))


def _qk(
    rank: int,
    query: Tensor,
    key: Tensor,
    kernel_size: Ints,
    dilation: Ints,
    additional_keys: Tensor | None,
    is_causal: Bools | None,
    rpb: Tensor | None,
) -> Tensor:
    pattern = neighborhood_of(rank, kernel_size, 1, dilation, is_causal)
    _check_heads_first("query", query, rank)
    if key.shape != query.shape:
        raise ValueError(f"key must have the shape of query, {tuple(query.shape)}, got {tuple(key.shape)}")
    keys, offsets, seen = _windows(pattern, query.shape[2:-1], query.device)
    q = query.flatten(2, -2)
    logits = torch.einsum("bhtd,bhtnd->bhtn", q, key.flatten(2, -2)[:, :, keys])
    if rpb is not None:
        _check_bias(rpb, pattern, query)
        logits = logits + rpb.flatten(1)[:, offsets].to(logits.dtype)
    logits = logits.masked_fill(~seen, -torch.inf)
    if additional_keys is not None:
        _check_additional("additional_keys", additional_keys, query)
        logits = torch.cat([logits, q @ additional_keys.mT], dim=-1)
    return logits.reshape(*query.shape[:-1], logits.shape[-1])


def _av(
    rank: int,
    attn: Tensor,
    value: Tensor,
    kernel_size: Ints,
    dilation: Ints,
    additional_values: Tensor | None,
    is_causal: Bools | None,
) -> Tensor:
    pattern = neighborhood_of(rank, kernel_size, 1, dilation, is_causal)
    _check_heads_first("value", value, rank)
    extra = 0
    if additional_values is not None:
        _check_additional("additional_values", additional_values, value)
        extra = additional_values.shape[2]
    window = prod(per_axis(pattern.kernel_size, rank, "kernel_size"))
    if attn.shape != (*value.shape[:-1], window + extra):
        raise ValueError(
            f"attn must be {(*value.shape[:-1], window + extra)}, {window} weights of the window and {extra} of "
            f"additional tokens, got {tuple(attn.shape)}"
        )
    keys, _, seen = _windows(pattern, value.shape[2:-1], value.device)
    weights = attn.flatten(2, -2)
    seen_weights = weights[..., :window].masked_fill(~seen, 0.0)
    out = torch.einsum("bhtn,bhtnd->bhtd", seen_weights, value.flatten(2, -2)[:, :, keys])
    if additional_values is not None:
        out = out + weights[..., window:] @ additional_values
    return out.reshape(value.shape)


def _windows(pattern: Neighborhood, grid: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each token and each place of its window: the key token, its entry in a bias table, and whether it is seen.

    A place that is not seen names the query itself, so that nothing out of range is read.
    """
    keys, offsets, hidden = (np.zeros((1, 1), np.int64) for _ in range(3))
    windows = per_axis(pattern.kernel_size, len(grid), "kernel_size")
    for table, window, length in zip(pattern.bind(grid).terms[0], windows, grid, strict=True):
        own = np.arange(length)[:, None]
        place = table.start[:, None] + table.step * np.arange(window)
        past = place >= table.stop[:, None]
        place = np.where(past, own, place)
        keys = _row_major(keys, place, length)
        offsets = _row_major(offsets, (place - own) // table.step + window - 1, 2 * window - 1)
        hidden = _row_major(hidden, past.astype(np.int64), 1)
    to = torch.from_numpy
    return to(keys).to(device), to(offsets).to(device), to(hidden == 0).to(device)


def _row_major(so_far: Indices, axis: Indices, size: int) -> Indices:
    """``so_far * size + axis`` of every pair of rows and every pair of columns: [a, b], [c, d] -> [a*c, b*d]."""
    joined = so_far[:, None, :, None] * size + axis[None, :, None, :]
    return joined.reshape(len(so_far) * len(axis), -1)


def _check_heads_first(name: str, tensor: Tensor, rank: int) -> None:
    if tensor.dim() != rank + 3 or 0 in tensor.shape[2:-1]:
        raise ValueError(
            f"{name} must be [batch, heads, {rank} token axes, head_dim], {rank + 3} axes, none of them empty, "
            f"got shape {tuple(tensor.shape)}"
        )


def _check_additional(name: str, extra: Tensor, like: Tensor) -> None:
    if extra.dim() != 4 or extra.shape[:2] != like.shape[:2] or extra.shape[-1] != like.shape[-1]:
        raise ValueError(
            f"{name} must be [batch {like.shape[0]}, heads {like.shape[1]}, extra, head_dim {like.shape[-1]}], "
            f"got shape {tuple(extra.shape)}"
        )


def _check_bias(rpb: Tensor, pattern: Neighborhood, query: Tensor) -> None:
    rank = query.dim() - 3
    if any(per_axis(pattern.is_causal, rank, "is_causal")):
        raise NotImplementedError(f"rpb has no causal form, got is_causal={pattern.is_causal}")
    table = (query.shape[1], *(2 * window - 1 for window in per_axis(pattern.kernel_size, rank, "kernel_size")))
    if rpb.shape != table:
        raise ValueError(f"rpb must be {table}, heads and 2 * kernel_size - 1 per axis, got {tuple(rpb.shape)}")
