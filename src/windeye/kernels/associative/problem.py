"""One call of the memory as plain facts, and what is refused before any number is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.kernels.associative.network import Activation
from windeye.kernels.recurrence.problem import state_dtype
from windeye.kernels.softmax.problem import check_tensors

Reduction = Literal["sum", "mean"]


class FastWeights(NamedTuple):
    """What a memory is between tokens; the matrices of all layers lie one after the other, in float32 (float64)."""

    anchor: Float[Tensor, "batch heads numbers"]
    """The weights at the beginning of the running chunk, where gradients are taken."""
    weights: Float[Tensor, "batch heads numbers"]
    momentum: Float[Tensor, "batch heads numbers"]
    place: Int[Tensor, " batch"]
    """Tokens of the running chunk so far, below the chunk size."""


@dataclass(frozen=True)
class Options:
    """The settings of a memory; `windeye.associative_memory` says what they mean."""

    chunk_size: int
    activation: Activation
    loss_factor: float
    reduction: Reduction
    predict_decayed: bool
    max_grad_norm: float | None
    recompute: bool

    @property
    def factor(self) -> float:
        """What the error of a prediction is multiplied with to give the gradient of its loss."""
        return self.loss_factor / (self.chunk_size if self.reduction == "mean" else 1)

    def __post_init__(self) -> None:
        _check_count("chunk_size", self.chunk_size)
        for name, kind in (("activation", Activation), ("reduction", Reduction)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        _check_positive("loss_factor", self.loss_factor)
        if self.max_grad_norm is not None:
            _check_positive("max_grad_norm", self.max_grad_norm)


@dataclass(frozen=True)
class Work:
    """A call as backends get it: heads of sequences as rows, tokens in pieces that each lie in a chunk of their row."""

    query: Float[Tensor, "pieces rows width dim"]
    key: Float[Tensor, "pieces rows width dim"]
    value: Float[Tensor, "pieces rows width value_dim"]
    keep: Float[Tensor, "pieces rows width"]
    momentum: Float[Tensor, "pieces rows width"]
    step_size: Float[Tensor, "pieces rows width"]
    lengths: Int[Tensor, "pieces rows"]
    """Tokens of each piece, in front."""
    completes: Bool[Tensor, "pieces rows"]
    """Whether a chunk ends with the piece."""
    anchor: Float[Tensor, "rows numbers"]
    weights: Float[Tensor, "rows numbers"]
    surge: Float[Tensor, "rows numbers"]
    gain: Float[Tensor, "rows 1 dim"] | None
    shapes: list[tuple[int, int]]
    """Rows and columns of each layer."""


def pack(weights: Sequence[Float[Tensor, "*rows inner outer"]]) -> Float[Tensor, "*rows numbers"]:
    """The matrices of all layers in one row."""
    return torch.cat([weight.flatten(-2) for weight in weights], dim=-1)


def unpack(numbers: Float[Tensor, "*rows numbers"], shapes: list[tuple[int, int]]) -> list[Tensor]:
    """The matrices of all layers, as views."""
    parts = torch.split(numbers, [inner * outer for inner, outer in shapes], dim=-1)
    return [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def shapes_of(weights: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Rows and columns of each layer."""
    return [(weight.shape[1], weight.shape[2]) for weight in weights]


def check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Sequence[Tensor],
    gates: dict[str, Tensor | None],
    residual_gain: Tensor | None,
    lengths: Tensor | None,
    state: FastWeights | None,
    chunk_size: int,
) -> None:
    """Refuse tensors that do not fit each other.

    Raises:
        ValueError, TypeError: naming the argument, the axis and the values.
    """
    check_tensors(query, key, value)
    if query.dim() != 4:
        raise ValueError(f"query must be [batch, tokens, heads, dim], got shape {tuple(query.shape)}")
    batch, tokens, heads, dim = query.shape
    if key.shape != query.shape or value.shape[:-1] != query.shape[:-1]:
        raise ValueError(
            f"key and value must be [batch {batch}, tokens {tokens}, heads {heads}, dim] like query, "
            f"got {tuple(key.shape)} and {tuple(value.shape)}"
        )
    _check_weights(weights, heads, dim, value.shape[-1])
    for name, gate in gates.items():
        if gate is not None and gate.shape != (batch, tokens, heads):
            raise ValueError(
                f"{name} must be [batch {batch}, tokens {tokens}, heads {heads}], got shape {tuple(gate.shape)}"
            )
    if residual_gain is not None:
        if residual_gain.shape != (heads, dim):
            raise ValueError(
                f"residual_gain must be [heads {heads}, dim {dim}], got shape {tuple(residual_gain.shape)}"
            )
        if value.shape[-1] != dim:
            raise ValueError(f"a memory with a residual needs values as wide as keys, got {value.shape[-1]} and {dim}")
    if lengths is not None and lengths.shape != (batch,):
        raise ValueError(f"lengths must be [batch {batch}], got shape {tuple(lengths.shape)}")
    if state is not None:
        _check_state(state, batch, heads, sum(inner * outer for inner, outer in shapes_of(weights)), query, chunk_size)


def _check_weights(weights: Any, heads: int, dim: int, value_dim: int) -> None:
    if isinstance(weights, Tensor) or not all(isinstance(weight, Tensor) for weight in weights):
        raise TypeError("weights must be a sequence of tensors, one per layer of the memory")
    if not weights:
        raise ValueError("weights must have at least one layer")
    width = dim
    for layer, weight in enumerate(weights):
        last = layer == len(weights) - 1
        fits = weight.dim() == 3 and weight.shape[:2] == (heads, width) and (not last or weight.shape[2] == value_dim)
        if not fits:
            outer = f"value_dim {value_dim}" if last else "outer"
            raise ValueError(
                f"weights[{layer}] must be [heads {heads}, inner {width}, {outer}], got shape {tuple(weight.shape)}"
            )
        width = weight.shape[2]


def _check_state(state: FastWeights, batch: int, heads: int, numbers: int, query: Tensor, chunk_size: int) -> None:
    wide = state_dtype(query.dtype)
    for name in ("anchor", "weights", "momentum"):
        tensor = getattr(state, name)
        if tensor.shape != (batch, heads, numbers):
            raise ValueError(
                f"initial_state.{name} must be [batch {batch}, heads {heads}, numbers {numbers}], "
                f"got shape {tuple(tensor.shape)}"
            )
        if tensor.dtype != wide:
            raise TypeError(f"initial_state.{name} must be {wide} for inputs of {query.dtype}, got {tensor.dtype}")
    if state.place.shape != (batch,):
        raise ValueError(f"initial_state.place must be [batch {batch}], got shape {tuple(state.place.shape)}")
    if not torch.compiler.is_compiling() and bool(((state.place < 0) | (state.place >= chunk_size)).any()):
        raise ValueError(f"initial_state.place must be in [0, chunk_size {chunk_size}), got {state.place.tolist()}")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")
