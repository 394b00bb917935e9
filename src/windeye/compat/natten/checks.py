"""What NATTEN's functions refuse, and on which words: a wrong value is a ValueError that names the argument."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from windeye.patterns import Neighborhood
from windeye.patterns.pattern import is_int

Ints = int | tuple[int, ...]
Bools = bool | tuple[bool, ...]
"""One value for every token axis, or one per axis."""

SCHEDULES = ("non", "coop", "pp")
TILE_SIZES = ("q_tile_size", "kv_tile_size", "backward_q_tile_size", "backward_kv_tile_size", "backward_kv_splits")
TILE_SHAPES = ("q_tile_shape", "kv_tile_shape", "backward_q_tile_shape", "backward_kv_tile_shape", "backward_kv_splits")


def check_attention_tensors(query: Tensor, key: Tensor, value: Tensor, *, rank: int, same_grid: bool) -> None:
    """Heads-last tensors with ``rank`` token axes that describe one attention problem."""
    tensors = (("query", query), ("key", key), ("value", value))
    for name, tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.is_sparse or tensor.is_nested:
            raise NotImplementedError(f"{name} must be a dense tensor, sparse and nested tensors are not supported")
        if tensor.dim() != rank + 3:
            raise ValueError(
                f"{name} must be [batch, {rank} token axes, heads, head_dim], {rank + 3} axes, "
                f"got shape {tuple(tensor.shape)}"
            )
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device} but query is {query.dtype} on {query.device}"
            )
        if tensor.shape[0] != query.shape[0]:
            raise ValueError(f"{name} has batch {tensor.shape[0]} but query has {query.shape[0]}")
        if same_grid and tensor.shape[1:-2] != query.shape[1:-2]:
            raise ValueError(
                f"{name} has token layout {tuple(tensor.shape[1:-2])} but query has {tuple(query.shape[1:-2])}"
            )
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"key and value differ before the last axis: {tuple(key.shape)} and {tuple(value.shape)}")
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"key has head_dim {key.shape[-1]} but query has {query.shape[-1]}")
    heads, kv_heads = query.shape[-2], key.shape[-2]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"query has {heads} heads, which {kv_heads} key/value heads do not divide")


def check_additional(
    key: Tensor, value: Tensor, additional_keys: Tensor | None, additional_values: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Both or neither; [batch, extra, kv_heads, dim] like key and value."""
    if additional_keys is None and additional_values is None:
        return None
    if additional_keys is None or additional_values is None:
        missing = "additional_keys" if additional_keys is None else "additional_values"
        raise ValueError(f"additional_keys and additional_values come together, but {missing} is None")
    for name, extra, like in (
        ("additional_keys", additional_keys, key),
        ("additional_values", additional_values, value),
    ):
        if not isinstance(extra, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(extra).__name__}")
        if extra.dim() != 4 or extra.shape[0] != like.shape[0] or extra.shape[2:] != like.shape[-2:]:
            raise ValueError(
                f"{name} must be [batch {like.shape[0]}, extra, heads {like.shape[-2]}, head_dim {like.shape[-1]}], "
                f"got shape {tuple(extra.shape)}"
            )
        if extra.dtype != like.dtype or extra.device != like.device:
            raise ValueError(f"{name} is {extra.dtype} on {extra.device}, must be {like.dtype} on {like.device}")
    if additional_keys.shape[1] != additional_values.shape[1]:
        raise ValueError(
            f"additional_keys has {additional_keys.shape[1]} tokens "
            f"but additional_values has {additional_values.shape[1]}"
        )
    return additional_keys, additional_values


def neighborhood_of(
    rank: int, kernel_size: object, stride: object, dilation: object, is_causal: object
) -> Neighborhood:
    """The pattern that NATTEN's four parameters describe, one entry per axis.

    Integers broadcast; None is the default. kernel_size 1 is refused as in NATTEN, though `windeye.Neighborhood`
    knows it.
    """
    return Neighborhood(
        _integers("kernel_size", kernel_size, rank, 2),
        stride=_integers("stride", 1 if stride is None else stride, rank, 1),
        dilation=_integers("dilation", 1 if dilation is None else dilation, rank, 1),
        is_causal=_bools("is_causal", False if is_causal is None else is_causal, rank),
    )


def check_tile_shape(name: str, shape: object, rank: int) -> None:
    """None, or one positive integer per token axis."""
    if shape is not None and not (isinstance(shape, Sequence) and len(shape) == rank and all(map(_positive, shape))):
        raise ValueError(f"{name} must be None or {rank} positive integers, one per token axis, got {shape!r}")


def check_tile_size(name: str, size: object) -> None:
    """None, or a positive integer."""
    if size is not None and not _positive(size):
        raise ValueError(f"{name} must be None or a positive integer, got {size!r}")


def check_schedule(schedule: object) -> None:
    """None, or the name of one of NATTEN's Hopper schedules."""
    if schedule is not None and schedule not in SCHEDULES:
        raise ValueError(f"kernel_schedule must be None or one of {SCHEDULES}, got {schedule!r}")


def _positive(value: object) -> bool:
    return isinstance(value, int) and is_int(value) and value >= 1


def _integers(name: str, value: object, rank: int, minimum: int) -> tuple[int, ...]:
    entries = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * rank
    if len(entries) != rank:
        raise ValueError(f"{name} must be an integer or {rank} integers, one per token axis, got {value!r}")
    checked = []
    for axis, entry in enumerate(entries):
        if not isinstance(entry, int) or not is_int(entry) or entry < minimum:
            raise ValueError(f"{name} must be integers of at least {minimum}, got {entry!r} on axis {axis}")
        checked.append(entry)
    return tuple(checked)


def _bools(name: str, value: object, rank: int) -> tuple[bool, ...]:
    entries = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * rank
    flags = tuple(entry for entry in entries if isinstance(entry, bool))
    if len(entries) != rank or len(flags) != rank:
        raise ValueError(f"{name} must be a bool or {rank} bools, one per token axis, got {value!r}")
    return flags
