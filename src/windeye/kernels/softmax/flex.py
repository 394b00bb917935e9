"""torch's FlexAttention behind our interface: serves GPUs, and inference on CPUs, until our own kernels take its place.

The block mask is built from the bound pattern a stretch of queries at a time, so its making needs no quadratic memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem
from windeye.patterns import Bound, Lifetimes, Relations

name = "flex"
JOINS_EXTRA = False

BLOCK = 128
MOST_COMPILED = 256
"""Combinations of pattern, shape and dtype that one process compiles."""


def can_run(problem: Problem) -> str | None:
    """Runs plain windows on CUDA, and forward passes on CPUs; the reason names what it cannot do."""
    if problem.device.type not in ("cuda", "cpu"):
        return f"it runs on CUDA and, forward only, on CPUs; the tensors are on {problem.device.type}"
    if problem.device.type == "cpu" and problem.needs_grad:
        return "FlexAttention has no backward pass on CPUs"
    if problem.device.type == "cpu" and problem.needs_lse:
        return "FlexAttention gives no log-sum-exp on CPUs"
    if problem.dtype == torch.float64:
        return "FlexAttention does not compile for float64"
    if problem.dropout_p > 0.0:
        return "FlexAttention has no dropout"
    if problem.has_bias:
        return "its gradient of a bias table is not dependable"
    if 0 in (problem.batch, problem.heads, *problem.grid, *problem.grid_kv):
        return "FlexAttention refuses empty tensors"
    if problem.device.type == "cuda" and min(problem.head_dim, problem.value_dim) < 16:
        return f"its CUDA kernel needs head_dim of at least 16, got {problem.head_dim} and {problem.value_dim}"
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """Compiled once per pattern and shape; the first call of a process takes seconds."""
    q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in operands[:3])
    key_padding = operands.key_padding
    bound = problem.bound
    if isinstance(bound, Lifetimes | Relations):
        mask = _data_mask(problem, bound, key_padding)
    elif key_padding is None:
        mask = _cached_mask(bound, problem.device)
    else:
        mask = _with_padding(_cached_mask(bound, problem.device), key_padding.reshape(problem.batch, -1))
    run = _flex_attention() if torch.compiler.is_compiling() else _compiled()
    options = {"block_mask": mask, "scale": problem.scale, "enable_gqa": problem.heads != problem.kv_heads}
    if problem.needs_lse or problem.device.type != "cpu":
        from torch.nn.attention.flex_attention import AuxRequest

        out, aux = run(q, k, v, return_aux=AuxRequest(lse=True), **options)
        lse = aux.lse
    else:
        out = run(q, k, v, **options)
        lse = out.new_full(out.shape[:-1], torch.nan)  # nobody asked for it; a reader would notice
    shape = (problem.batch, *problem.grid, problem.heads)
    out = out.transpose(1, 2).reshape(*shape, problem.value_dim)
    return out, lse.to(problem.lse_dtype).transpose(1, 2).reshape(shape)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    # One function for all calls: patterns and shapes are its arguments. Past torch's own limit of eight it would run
    # uncompiled, with quadratic memory and no more than a log line; a full graph raises instead.
    compiled = torch.compile(_flex_attention(), dynamic=False, fullgraph=True)

    def run(*args: Any, **options: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
            return compiled(*args, **options)

    return run


def _flex_attention() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@lru_cache(maxsize=64)
def _cached_mask(bound: Bound, device: torch.device) -> Any:
    return block_mask(bound, device)


def _data_mask(problem: Problem, bound: Lifetimes | Relations, hidden: torch.Tensor | None) -> Any:
    """Not cached, as it depends on data; torch makes it through a dense mask of one byte per pair."""
    from torch.nn.attention.flex_attention import create_block_mask

    allowed = bound.mask_mod(problem.device, problem.heads)

    def shown(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        assert hidden is not None
        return allowed(batch, head, query, key) & ~hidden[batch, key]

    mask_mod = allowed if hidden is None else shown
    sizes = (problem.batch, problem.heads, bound.tokens, bound.tokens_kv)
    return create_block_mask(mask_mod, *sizes, device=str(problem.device), BLOCK_SIZE=BLOCK)


def block_mask(bound: Bound, device: torch.device | str = "cpu") -> Any:
    """A ``BlockMask`` of row-major tokens, equal to ``create_block_mask`` of the pattern's ``mask_mod``.

    Example:
        >>> from windeye.patterns import Sliding
        >>> block_mask(Sliding(128).bind((512,))).kv_num_blocks.tolist()
        [[[1, 2, 2, 2]]]
    """
    return block_mask_of(bound.mask_mod(device), bound.tokens, bound.tokens_kv, device)


def block_mask_of(
    mask_mod: Callable[[Any, Any, Any, Any], torch.Tensor],
    tokens: int,
    tokens_kv: int,
    device: torch.device | str = "cpu",
) -> Any:
    """A ``BlockMask`` of a relation that all batch entries and heads share, made a stretch of queries at a time."""
    from torch.nn.attention.flex_attention import BlockMask

    rows, columns = -(-tokens // BLOCK), -(-tokens_kv // BLOCK)
    keys = torch.arange(columns * BLOCK, device=device)
    inside = keys < tokens_kv
    keys = keys.clamp(max=tokens_kv - 1)
    some = torch.zeros(rows, columns, dtype=torch.bool, device=device)
    whole = torch.zeros_like(some)
    for row in range(rows):
        queries = torch.arange(row * BLOCK, min((row + 1) * BLOCK, tokens), device=device)
        seen = (mask_mod(0, 0, queries[:, None], keys[None, :]) & inside).reshape(len(queries), columns, BLOCK)
        some[row] = seen.any(dim=2).any(dim=0)
        whole[row] = seen.all(dim=2).all(dim=0) & (len(queries) == BLOCK)
    return BlockMask.from_kv_blocks(
        *_indices(some & ~whole), *_indices(whole), BLOCK_SIZE=BLOCK, mask_mod=mask_mod,
        seq_lengths=(tokens, tokens_kv),
    )  # fmt: skip


def _indices(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each query block meets, and which: those first, in order."""
    count = chosen.sum(dim=1, dtype=torch.int32)
    order = torch.argsort((~chosen).int(), dim=1, stable=True).int()
    return count[None, None], order[None, None]


def _with_padding(mask: Any, hidden: torch.Tensor) -> Any:
    """The same blocks, none of them whole any more, with hidden keys left out."""
    from torch.nn.attention.flex_attention import BlockMask

    allowed = mask.mask_mod

    def mask_mod(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        return allowed(batch, head, query, key) & ~hidden[batch, key]

    batch = hidden.shape[0]
    some = mask.to_dense()[0, 0].bool()
    count, order = _indices(some)
    rows, columns = some.shape
    return BlockMask.from_kv_blocks(
        count.expand(batch, 1, rows).contiguous(), order.expand(batch, 1, rows, columns).contiguous(),
        BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=mask.seq_lengths,
    )  # fmt: skip
