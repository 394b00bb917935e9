"""Launching the kernels: tables, tile sizes and buffers of one call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from windeye.kernels.recurrence.features import width
from windeye.kernels.recurrence.problem import EPSILON, Problem
from windeye.kernels.recurrence.triton import CHUNK
from windeye.kernels.recurrence.triton.chunks import Chunks, chunks_of
from windeye.kernels.recurrence.triton.gradients import grad_query_key, grad_value
from windeye.kernels.recurrence.triton.output import chunk_output
from windeye.kernels.recurrence.triton.states import walk

LARGEST_TILE = 64
LARGEST_GRADIENT_TILE = 32
"""Of `grad_query_key`, which holds the most at a time: with these sizes nothing is spilled at 128 coordinates,
and all kernels fit the 99 KiB of shared memory that the smallest cards have."""
SMALLEST_TILE = 16
"""Of a matrix product on tensor cores."""
LAUNCH = {"num_warps": 8, "num_stages": 1}


@dataclass(frozen=True)
class Call:
    """Inputs of one call in the form that the kernels take."""

    problem: Problem
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    log_decay: torch.Tensor | None
    chunks: Chunks
    decay: torch.Tensor | None
    """The log-decay, dense, in float32."""
    padded: bool

    @classmethod
    def of(
        cls,
        problem: Problem,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        log_decay: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        lengths: torch.Tensor | None,
    ) -> Call:
        chunks = chunks_of(problem.batch, problem.tokens, chunk_size(problem), problem.device, cu_seqlens, lengths)
        decay = None if log_decay is None else log_decay.detach().to(torch.float32).contiguous()
        return cls(problem, query, key, value, log_decay, chunks, decay, lengths is not None)

    @property
    def group(self) -> int:
        return self.problem.heads // self.problem.kv_heads

    @property
    def features(self) -> int:
        return width(self.problem.feature_map, self.problem.head_dim)

    @property
    def shape(self) -> dict[str, int]:
        """Sizes by the names that every kernel has."""
        p = self.problem
        return {
            "tokens": p.tokens, "HEADS": p.heads, "head_dim": p.head_dim, "features": self.features,
            "columns": p.value_dim, "state_columns": p.value_dim + p.normalize,
        }  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """What the kernels are compiled for, and how they are launched."""
        p = self.problem
        return {
            "DECAY": "none" if self.decay is None else "head" if self.decay.dim() == 1 else "token",
            "TAYLOR": p.feature_map == "taylor2",
            "NORMALIZE": p.normalize,
            "PRECISION": "tf32x3" if p.dtype == torch.float32 else "tf32",
            "CHUNK": tile(min(chunk_size(p), p.tokens)),
            **LAUNCH,
        }

    def tiles(self, largest: int = LARGEST_TILE) -> dict[str, int]:
        return tiles(self.problem.head_dim, self.features, self.problem.value_dim, largest)

    @property
    def feature_table(self) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        p = self.problem
        return (None, None, None) if p.feature_map is None else taylor_table(p.head_dim, p.device)

    def new_states(self) -> torch.Tensor:
        shape = self.problem.state_shape
        return torch.empty((self.chunks.count, *shape[1:]), dtype=torch.float32, device=self.problem.device)

    def on_device(self) -> AbstractContextManager[Any]:
        """Launches go to the current device, which need not be that of the tensors."""
        device = self.problem.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@dataclass(frozen=True)
class SumsGradient:
    """The gradient of the sums, as the gradient of the output and factors per token: ``factor grad_out``, and ``last``
    for the denominator. Without one the factor is the scale."""

    grad_out: torch.Tensor
    factor: torch.Tensor | None
    last: torch.Tensor | None

    @classmethod
    def of(cls, problem: Problem, out: torch.Tensor, denominator: torch.Tensor, grad_out: torch.Tensor) -> SumsGradient:
        if not problem.normalize:
            return cls(grad_out, None, None)
        share = 1.0 / denominator
        last = -(grad_out.float() * out.float()).sum(-1) * share
        return cls(grad_out, share * problem.scale, last)


def states(call: Call, start: torch.Tensor | None, end: torch.Tensor | None = None) -> torch.Tensor:
    """The state before every chunk, [chunks, heads, features, columns]; the last one goes to ``end``."""
    written = call.new_states()
    if end is not None and end.numel() == 0:
        end = None
    _walk(call, call.key, call.group, call.value, call.group, None, start, written, end, reverse=False)
    return written


def pulls(call: Call, grad: SumsGradient, start: torch.Tensor | None, end: torch.Tensor | None) -> torch.Tensor:
    """The gradient of the state after every chunk; that of the initial state goes to ``end``."""
    written = call.new_states()
    _walk(call, call.query, 1, grad.grad_out, 1, grad, start, written, end, reverse=True)
    return written


def _walk(
    call: Call,
    x: torch.Tensor,
    x_group: int,
    y: torch.Tensor,
    y_group: int,
    grad: SumsGradient | None,
    start: torch.Tensor | None,
    written: torch.Tensor,
    end: torch.Tensor | None,
    *,
    reverse: bool,
) -> None:
    p = call.problem
    sizes = call.tiles()
    del sizes["DIM"]
    grid = (p.sequences * p.heads, parts(call.features, sizes["FEATURES"]), parts(p.value_dim, sizes["COLUMNS"]))
    factor, last = (None, None) if grad is None else (grad.factor, grad.last)
    start = None if start is None else start.to(torch.float32).contiguous()
    with call.on_device():
        walk[grid](
            x, *x.stride(), x_group, y, *y.stride(), y_group, factor, last, p.scale, call.decay, *call.feature_table,
            call.chunks.chunk, call.chunks.of_sequence, start, written, end, **call.shape, REVERSE=reverse,
            HAS_START=start is not None, HAS_END=end is not None, **sizes, **call.options,
        )  # fmt: skip


def output(call: Call, before: torch.Tensor, out: torch.Tensor, denominator: torch.Tensor) -> None:
    """Outputs from the states before each chunk."""
    p = call.problem
    sizes = call.tiles()
    grid = (call.chunks.count, p.heads, parts(p.value_dim, sizes["COLUMNS"]))
    with call.on_device():
        chunk_output[grid](
            call.query, *call.query.stride(), call.key, *call.key.stride(), call.value, *call.value.stride(),
            call.group, call.decay, *call.feature_table, call.chunks.chunk, before, out, denominator, p.scale, EPSILON,
            **call.shape, **sizes, **call.options,
        )  # fmt: skip


def gradients(call: Call, grad: SumsGradient, before: torch.Tensor, after: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of query, key, value and of the log-decay, where there is one."""
    p = call.problem
    sizes, small = call.tiles(), call.tiles(LARGEST_GRADIENT_TILE)
    q, k, v, g = call.query, call.key, call.value, grad.grad_out
    # Key heads shared by query heads have one gradient per query head at first.
    wide = torch.float32 if call.group > 1 else p.dtype
    new = torch.zeros if call.padded else torch.empty
    by_head = (p.batch, p.tokens, p.heads)
    grad_q = new((*by_head, p.head_dim), dtype=p.dtype, device=p.device)
    grad_k = new((*by_head, p.head_dim), dtype=wide, device=p.device)
    grad_v = new((*by_head, p.value_dim), dtype=wide, device=p.device)
    shares = parts(p.head_dim, small["DIM"])
    decay_parts = None
    if call.decay is not None:
        places = (call.chunks.count, p.heads) if call.decay.dim() == 1 else by_head
        decay_parts = new((*places, shares), dtype=torch.float32, device=p.device)
    with call.on_device():
        grad_query_key[(call.chunks.count, p.heads, shares)](
            q, *q.stride(), k, *k.stride(), v, *v.stride(), call.group, g, *g.stride(), grad.factor, grad.last, p.scale,
            call.decay, *call.feature_table, call.chunks.chunk, before, after, grad_q, grad_k, decay_parts,
            **call.shape, **small, **call.options,
        )  # fmt: skip
        grad_value[(call.chunks.count, p.heads, parts(p.value_dim, sizes["COLUMNS"]))](
            q, *q.stride(), k, *k.stride(), call.group, g, *g.stride(), grad.factor, p.scale, call.decay,
            *call.feature_table, call.chunks.chunk, after, grad_v, **call.shape, **sizes, **call.options,
        )  # fmt: skip
    grads = [grad_q, _shared(grad_k, call), _shared(grad_v, call)]
    if call.log_decay is not None and decay_parts is not None:
        by_place = decay_parts.sum(-1, dtype=torch.float64)
        grads.append((by_place.sum(0) if call.log_decay.dim() == 1 else by_place).to(call.log_decay.dtype))
    return grads


def _shared(grad: torch.Tensor, call: Call) -> torch.Tensor:
    if call.group == 1:
        return grad
    return grad.reshape(*grad.shape[:2], -1, call.group, grad.shape[3]).sum(3).to(call.problem.dtype)


def chunk_size(problem: Problem) -> int:
    """Tokens per chunk."""
    return min(problem.chunk_size or CHUNK, CHUNK)


def tiles(head_dim: int, features: int, value_dim: int, largest: int = LARGEST_TILE) -> dict[str, int]:
    """Sizes of tiles. Taylor features are made of whole rows of coordinates."""
    whole_rows = features != head_dim
    return {
        "DIM": tile(head_dim, LARGEST_TILE if whole_rows else largest),
        "FEATURES": tile(features, largest),
        "COLUMNS": tile(value_dim, largest),
    }


def tile(size: int, largest: int = LARGEST_TILE) -> int:
    """The power of two that holds this size, within what a tile may have."""
    return max(SMALLEST_TILE, min(largest, 1 << max(size - 1, 0).bit_length()))


def parts(size: int, of: int) -> int:
    """Tiles that hold this size."""
    return -(-size // of)


@lru_cache(maxsize=16)
def taylor_table(head_dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each Taylor feature as ``coefficient x[left] x[right]``, in the order of `features`; -1 stands for a factor 1.

    Example:
        >>> [t.tolist() for t in taylor_table(2, torch.device("cpu"))[:2]]
        [[-1, 0, 1, 0, 1, 1], [-1, -1, -1, 0, 1, 0]]
    """
    row, column = torch.tril_indices(head_dim, head_dim, -1)
    each = torch.arange(head_dim)
    none = torch.full((head_dim,), -1)
    left = torch.cat([none[:1], each, each, row])
    right = torch.cat([none[:1], none, each, column])
    coefficient = torch.ones(left.shape[0], dtype=torch.float32)
    coefficient[1 + head_dim : 1 + 2 * head_dim] = 0.5**0.5
    return left.to(device, torch.int32), right.to(device, torch.int32), coefficient.to(device)
