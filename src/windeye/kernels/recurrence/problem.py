"""One call of linear attention as plain facts, and what is refused before any number is computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from windeye.kernels.recurrence.features import FEATURE_MAPS, width
from windeye.kernels.softmax.problem import check_tensors

EPSILON = 1e-12
"""Added to the denominator of ``normalize=True``."""


@dataclass(frozen=True)
class Problem:
    """Shapes, types and options of one call. ``kv_heads`` divides ``heads``."""

    batch: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    sequences: int
    """Rows of the states: the batch, or the number of packed sequences."""
    packed: bool
    feature_map: str | None
    normalize: bool
    scale: float
    chunk_size: int | None
    dtype: torch.dtype
    device: torch.device
    needs_state: bool = True
    needs_decay_grad: bool = True
    """False where the log-decay is a constant: a kernel may then give zeros for its gradient."""

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype(self.dtype)

    @property
    def state_shape(self) -> tuple[int, int, int, int]:
        """[sequences, heads, features, value_dim]; the denominator of ``normalize`` is one more value column."""
        columns = self.value_dim + self.normalize
        return (self.sequences, self.heads, width(self.feature_map, self.head_dim), columns)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """States and decays are float32, or float64 for float64 inputs: sums over thousands of tokens need the bits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def problem_of(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    *,
    feature_map: str | None,
    normalize: bool,
    scale: float,
    chunk_size: int | None,
    needs_state: bool = True,
) -> Problem:
    """Read the facts off the tensors, which must have passed `check`."""
    batch, tokens, heads, head_dim = query.shape
    return Problem(
        batch=batch,
        tokens=tokens,
        heads=heads,
        kv_heads=key.shape[2],
        head_dim=head_dim,
        value_dim=value.shape[3],
        sequences=batch if cu_seqlens is None else cu_seqlens.shape[0] - 1,
        packed=cu_seqlens is not None,
        feature_map=feature_map,
        normalize=normalize,
        scale=scale,
        chunk_size=chunk_size,
        dtype=query.dtype,
        device=query.device,
        needs_state=needs_state,
    )


def check(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    feature_map: str | None,
    initial_state: torch.Tensor | None,
    normalize: bool,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
    chunk_size: int | None,
) -> None:
    """Refuse tensors and options that do not describe one recurrence; errors name the argument and the values."""
    check_tensors(query, key, value)
    if query.dim() != 4:
        raise ValueError(
            f"query must be [batch, tokens, heads, head_dim], got shape {tuple(query.shape)}; flatten the grid, "
            "a recurrence has one order of tokens"
        )
    if query.shape[1] != key.shape[1]:
        raise ValueError(f"key has {key.shape[1]} tokens but query has {query.shape[1]}")
    if feature_map not in FEATURE_MAPS:
        raise ValueError(f'feature_map must be None or "taylor2", got {feature_map!r}')
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size must be a positive integer, got {chunk_size!r}")
    if log_decay is not None:
        _check_decay_shape(log_decay, query)
    batch = query.shape[0]
    if cu_seqlens is not None and lengths is not None:
        raise ValueError("cu_seqlens packs sequences and lengths pads them; give one of the two")
    if cu_seqlens is not None:
        _check_integers("cu_seqlens", cu_seqlens, query)
        if batch != 1:
            raise ValueError(f"cu_seqlens needs batch 1, got batch {batch}; lay the sequences one after the other")
        if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2:
            raise ValueError(f"cu_seqlens must be [sequences + 1], got shape {tuple(cu_seqlens.shape)}")
    if lengths is not None:
        _check_integers("lengths", lengths, query)
        if lengths.shape != (batch,):
            raise ValueError(f"lengths must be [batch {batch}], got shape {tuple(lengths.shape)}")
    if initial_state is not None:
        problem = problem_of(
            query, key, value, cu_seqlens, feature_map=feature_map, normalize=normalize, scale=1.0, chunk_size=None
        )
        _check_state(initial_state, problem)


def check_values(
    tokens: int, log_decay: torch.Tensor | None, cu_seqlens: torch.Tensor | None, lengths: torch.Tensor | None
) -> None:
    """Refuse numbers that are no decays, bounds or lengths: where numbers are known, not where a graph is traced."""
    if log_decay is not None and log_decay.numel() and not bool((log_decay <= 0).all()):
        wrong = log_decay.detach().flatten()
        wrong = wrong[~(wrong <= 0)]
        raise ValueError(
            f"log_decay must be at most 0 (0 keeps all, -inf forgets all), got {wrong[0].item()} "
            f"in {wrong.numel()} of {log_decay.numel()} places"
        )
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        if bounds[0] != 0 or bounds[-1] != tokens or any(a > b for a, b in pairwise(bounds)):
            raise ValueError(f"cu_seqlens must rise from 0 to the number of tokens {tokens}, got {bounds}")
    if lengths is not None and lengths.numel():
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > tokens:
            raise ValueError(f"lengths must be in [0, {tokens}], got {low if low < 0 else high}")


def _check_decay_shape(log_decay: torch.Tensor, query: torch.Tensor) -> None:
    if not isinstance(log_decay, torch.Tensor):
        raise TypeError(f"log_decay must be a torch.Tensor, got {type(log_decay).__name__}")
    heads = query.shape[2]
    if tuple(log_decay.shape) not in ((heads,), tuple(query.shape[:3])):
        raise ValueError(
            f"log_decay must be [heads {heads}] or [batch, tokens, heads] = {list(query.shape[:3])}, "
            f"got shape {tuple(log_decay.shape)}"
        )
    if not log_decay.is_floating_point():
        raise TypeError(f"log_decay must be floating point, got {log_decay.dtype}")
    if log_decay.device != query.device:
        raise ValueError(f"log_decay is on {log_decay.device} but query is on {query.device}")


def _check_integers(name: str, tensor: torch.Tensor, query: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of integers, got {type(tensor).__name__}")
    if tensor.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be int32 or int64, got {tensor.dtype}")
    if tensor.device not in (query.device, torch.device("cpu")):
        raise ValueError(f"{name} is on {tensor.device} but query is on {query.device}")


def _check_state(state: torch.Tensor, problem: Problem) -> None:
    if not isinstance(state, torch.Tensor):
        raise TypeError(f"initial_state must be a torch.Tensor, got {type(state).__name__}")
    if tuple(state.shape) != problem.state_shape:
        raise ValueError(
            f"initial_state must be [sequences, heads, features, value columns] = {list(problem.state_shape)}, "
            f"got shape {tuple(state.shape)}"
        )
    if state.dtype != problem.state_dtype:
        raise TypeError(f"initial_state must be {problem.state_dtype} for {problem.dtype} tensors, got {state.dtype}")
    if state.device != problem.device:
        raise ValueError(f"initial_state is on {state.device} but query is on {problem.device}")
