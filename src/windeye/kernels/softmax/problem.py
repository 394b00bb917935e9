"""One call of softmax attention as plain facts: what backends look at when they say whether they can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from windeye.patterns import Allowed, Bound, Expiry, Pattern, Routed

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Problem:
    """Shapes, types and options of one call. ``kv_heads`` divides ``heads``; tokens are numbered row-major."""

    pattern: Pattern
    grid: tuple[int, ...]
    grid_kv: tuple[int, ...]
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device
    scale: float
    dropout_p: float = 0.0
    has_bias: bool = False
    has_key_padding: bool = False
    needs_grad: bool = False
    needs_lse: bool = True

    @property
    def bound(self) -> Bound:
        return self.pattern.bind(self.grid, self.grid_kv)

    @property
    def lse_dtype(self) -> torch.dtype:
        return lse_dtype(self.dtype)


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """The log-sum-exp is kept in float32, or float64 for float64 inputs: merging needs the bits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def problem_of(
    pattern: Pattern,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    dropout_p: float = 0.0,
    has_bias: bool = False,
    has_key_padding: bool = False,
    needs_grad: bool = False,
    needs_lse: bool = True,
) -> Problem:
    """Read the facts off the tensors, which must have passed `check_tensors`."""
    return Problem(
        pattern=pattern,
        grid=tuple(query.shape[1:-2]),
        grid_kv=tuple(key.shape[1:-2]),
        batch=query.shape[0],
        heads=query.shape[-2],
        kv_heads=key.shape[-2],
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        dtype=query.dtype,
        device=query.device,
        scale=scale,
        dropout_p=dropout_p,
        has_bias=has_bias,
        has_key_padding=has_key_padding,
        needs_grad=needs_grad,
        needs_lse=needs_lse,
    )


def check_tensors(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    """Refuse tensors that do not describe one attention problem; errors name the argument, the axis and the values."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.dim() < 4:
            raise ValueError(
                f"{name} must be [batch, *grid, heads, head_dim] with at least one grid axis, "
                f"got shape {tuple(tensor.shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype} but query has {query.dtype}; cast them alike")
        if tensor.device != query.device:
            raise ValueError(f"{name} is on {tensor.device} but query is on {query.device}")
        if tensor.dim() != query.dim():
            raise ValueError(f"{name} has {tensor.dim() - 3} grid axes but query has {query.dim() - 3}")
        if tensor.shape[0] != query.shape[0]:
            raise ValueError(f"{name} has batch {tensor.shape[0]} but query has {query.shape[0]}")
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"key and value differ before the last axis: {tuple(key.shape)} and {tuple(value.shape)}")
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"key has head_dim {key.shape[-1]} but query has {query.shape[-1]}")
    heads, kv_heads = query.shape[-2], key.shape[-2]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"query has {heads} heads, which {kv_heads} key/value heads do not divide")
    if query.shape[-1] == 0 or value.shape[-1] == 0:
        raise ValueError(f"head_dim and value dim must be at least 1, got {query.shape[-1]} and {value.shape[-1]}")


def check_bias(bias: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> None:
    """A relative table ``[heads, *(2 reach + 1)]``: one odd number of offsets per grid axis."""
    if not isinstance(bias, torch.Tensor):
        raise TypeError(f"bias must be a torch.Tensor, got {type(bias).__name__}")
    rank = query.dim() - 3
    if bias.dim() != rank + 1 or bias.shape[0] != query.shape[-2]:
        raise ValueError(
            f"bias must be [heads, *offsets] with {query.shape[-2]} heads and {rank} axes of offsets, "
            f"got shape {tuple(bias.shape)}"
        )
    for axis, offsets in enumerate(bias.shape[1:]):
        if offsets % 2 == 0:
            raise ValueError(f"bias has {offsets} offsets on grid axis {axis}; it must be odd, 2 * reach + 1")
    if bias.dtype not in DTYPES or bias.device != query.device:
        raise TypeError(f"bias must be floating point on {query.device}, got {bias.dtype} on {bias.device}")
    if query.shape[1:-2] != key.shape[1:-2]:
        raise ValueError(
            f"bias needs equal query and key grids, got {tuple(query.shape[1:-2])} and {tuple(key.shape[1:-2])}"
        )


def check_pattern(pattern: Pattern, query: torch.Tensor, key: torch.Tensor) -> None:
    """What a pattern that depends on data carries must fit the tensors; others are checked when they are bound."""
    if isinstance(pattern, Expiry):
        _check_lifetimes(pattern, query, key)
    elif isinstance(pattern, Allowed):
        _check_relations(pattern, query, key)
    elif isinstance(pattern, Routed):
        pattern.cut(tuple(query.shape[1:-2]), "grid of query")
        pattern.cut(tuple(key.shape[1:-2]), "grid of key")
        _check_sharing("index", pattern.planes, query)


def _check_relations(pattern: Allowed, query: torch.Tensor, key: torch.Tensor) -> None:
    """A mask must fit the batch, the heads, the queries and the keys of the tensors."""
    if query.dim() != 4:
        raise ValueError(f"Allowed is a pattern of sequences, but query has {query.dim() - 3} grid axes")
    queries, keys = pattern.planes.shape[-2:]
    if (queries, keys) != (query.shape[1], key.shape[1]):
        raise ValueError(
            f"mask holds {queries} queries and {keys} keys but query has {query.shape[1]} and key has {key.shape[1]}"
        )
    _check_sharing("mask", pattern.planes, query)


def _check_lifetimes(pattern: Expiry, query: torch.Tensor, key: torch.Tensor) -> None:
    """A table of key lifetimes must fit the batch, the heads and the keys of the tensors."""
    if query.dim() != 4:
        raise ValueError(f"Expiry is a pattern of sequences, but query has {query.dim() - 3} grid axes")
    keys = pattern.planes.shape[-1]
    if keys != key.shape[1]:
        raise ValueError(f"table holds {keys} keys but key has {key.shape[1]}")
    _check_sharing("table", pattern.planes, query)


def _check_sharing(name: str, planes: torch.Tensor, query: torch.Tensor) -> None:
    """Planes [batch, heads, ...] may be shared by all batch entries and by groups of heads."""
    batch, heads = planes.shape[:2]
    if batch not in (1, query.shape[0]):
        raise ValueError(f"{name} has batch {batch} but query has {query.shape[0]}; it must be that or 1")
    if heads == 0 or query.shape[-2] % heads:
        raise ValueError(f"{name} has {heads} heads, which do not divide the {query.shape[-2]} heads of query")
    if planes.device != query.device:
        raise ValueError(f"{name} is on {planes.device} but query is on {query.device}")


def check_key_bias(bias: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> None:
    """A number per key, [batch, heads, keys], that is added to its logits; as many heads as key or more."""
    if not isinstance(bias, torch.Tensor):
        raise TypeError(f"bias must be a torch.Tensor, got {type(bias).__name__}")
    if query.dim() != 4:
        raise ValueError(f"a number per key belongs to sequences, but query has {query.dim() - 3} grid axes")
    batch, keys, kv_heads, heads = key.shape[0], key.shape[1], key.shape[2], query.shape[2]
    if bias.dim() != 3 or bias.shape[0] != batch or bias.shape[2] != keys:
        raise ValueError(
            f"with Expiry, Allowed and Routed bias must be [batch {batch}, heads, keys {keys}], one number per key, "
            f"got shape {tuple(bias.shape)}"
        )
    if bias.shape[1] == 0 or bias.shape[1] % kv_heads or heads % bias.shape[1]:
        raise ValueError(
            f"bias has {bias.shape[1]} heads; it must be a multiple of the {kv_heads} heads of key that divides the "
            f"{heads} heads of query"
        )
    if bias.dtype not in DTYPES or bias.device != query.device:
        raise TypeError(f"bias must be floating point on {query.device}, got {bias.dtype} on {bias.device}")


def check_extra(extra_kv: object, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair of keys and values [batch, extra, kv_heads, dim] that every query sees."""
    if not isinstance(extra_kv, tuple | list) or len(extra_kv) != 2:
        raise TypeError(f"extra_kv must be a pair (key, value), got {type(extra_kv).__name__}")
    for place, (extra, like) in enumerate(zip(extra_kv, (key, value), strict=True)):
        name = f"extra_kv[{place}]"
        if not isinstance(extra, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(extra).__name__}")
        if extra.dim() != 4 or extra.shape[0] != like.shape[0] or extra.shape[2:] != like.shape[-2:]:
            raise ValueError(
                f"{name} must be [batch {like.shape[0]}, extra, kv_heads {like.shape[-2]}, dim {like.shape[-1]}], "
                f"got shape {tuple(extra.shape)}"
            )
        if extra.dtype != like.dtype:
            raise TypeError(f"{name} has dtype {extra.dtype} but query has {like.dtype}; cast them alike")
        if extra.device != like.device:
            raise ValueError(f"{name} is on {extra.device} but query is on {like.device}")
    extra_key, extra_value = extra_kv
    if extra_key.shape[1] != extra_value.shape[1]:
        raise ValueError(f"extra_kv holds {extra_key.shape[1]} keys but {extra_value.shape[1]} values")
    return extra_key, extra_value


def check_key_padding(key_padding: torch.Tensor, key: torch.Tensor) -> None:
    """A bool tensor [batch, *grid_kv], True where a key must not be seen."""
    if not isinstance(key_padding, torch.Tensor):
        raise TypeError(f"key_padding must be a torch.Tensor, got {type(key_padding).__name__}")
    if key_padding.dtype != torch.bool:
        raise TypeError(f"key_padding must be bool (True hides a key), got {key_padding.dtype}")
    if key_padding.shape != key.shape[:-2]:
        raise ValueError(f"key_padding must be {tuple(key.shape[:-2])} like key, got {tuple(key_padding.shape)}")
    if key_padding.device != key.device:
        raise ValueError(f"key_padding is on {key_padding.device} but key is on {key.device}")


def bias_steps(bound: Bound) -> tuple[int, ...]:
    """Positions per bias offset and axis: the dilation, so that a dilated window uses a table of the same size."""
    steps: list[int] = []
    for axis in range(bound.rank):
        found = {term[axis].step for term in bound.terms}
        if len(found) > 1:
            raise ValueError(f"bias needs one dilation per axis, but axis {axis} combines dilations {sorted(found)}")
        steps.append(found.pop() if found else 1)
    return tuple(steps)


def check_reach(bound: Bound, offsets: Sequence[int]) -> None:
    """Refuse a bias table that does not reach the farthest key of a window."""
    steps = bias_steps(bound)
    for axis in range(bound.rank):
        reach = 0
        for term in bound.terms:
            table = term[axis]
            live = table.stop > table.start
            where = np.arange(table.queries)
            if live.any():
                before = (where - table.start)[live].max()
                after = (table.stop - 1 - where)[live].max()
                reach = max(reach, int(before) // steps[axis], int(after) // steps[axis])
        if offsets[axis] < 2 * reach + 1:
            raise ValueError(
                f"bias has {offsets[axis]} offsets on grid axis {axis} but keys lie up to {reach} steps away; "
                f"it must have at least {2 * reach + 1}"
            )
