"""The oracle backend: dense attention with the mask of the bound pattern, in plain differentiable torch.

Quadratic in memory and meant to be obviously right; float64 and double backward work because autograd does the rest.
A NaN among the values reaches every row of its batch and head (zero times NaN), unless no query sees that key; NaN in a
query or key stays where it is seen.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from windeye.kernels.softmax.dropout import keep_mask
from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem, bias_steps, check_reach
from windeye.patterns import Allowed, Bound, Expiry, Routed, from_spec
from windeye.patterns.lifetimes import visible

name = "reference"
JOINS_EXTRA = False


def can_run(_problem: Problem) -> str | None:
    """The reference runs everything."""
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``out = softmax(scale q k^T + bias, allowed) v`` and its log-sum-exp, per head.

    A row that sees nothing gives zeros and ``lse = -inf``. Half types are computed in float32.
    """
    wide = problem.lse_dtype
    tokens, tokens_kv = prod(problem.grid), prod(problem.grid_kv)
    group = problem.heads // problem.kv_heads
    q = operands.query.reshape(problem.batch, tokens, problem.heads, problem.head_dim).to(wide)
    k = operands.key.reshape(problem.batch, tokens_kv, problem.kv_heads, problem.head_dim).to(wide)
    v = operands.value.reshape(problem.batch, tokens_kv, problem.kv_heads, problem.value_dim).to(wide)
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    # Heads go first and the products are matrix products of slices: one query's NaN stays in its own row.
    logits = problem.scale * torch.einsum("bqhd,bkhd->bhqk", q, k)
    if operands.bias is not None:
        logits = logits + _dense_bias(problem, operands.bias.to(wide))
    allowed = _allowed(problem)
    if operands.key_padding is not None:
        allowed = allowed & ~operands.key_padding.reshape(problem.batch, 1, 1, tokens_kv)
    logits = logits.masked_fill(~allowed, -torch.inf)
    seen = allowed.any(dim=-1).expand(logits.shape[:-1])
    # Rows that see nothing are computed as zeros and cut out, so that neither they nor their gradients are NaN.
    safe = logits.masked_fill(~seen[..., None], 0.0)
    lse = torch.logsumexp(safe, dim=-1)
    weights = torch.exp(safe - lse[..., None]).masked_fill(~allowed, 0.0)
    if problem.dropout_p > 0.0:
        assert operands.seed is not None
        weights = weights * keep_mask(operands.seed, problem, problem.device).to(wide) / (1.0 - problem.dropout_p)
    # A hidden value may be NaN; zero times NaN would leak it into rows that do not see it.
    v = v.masked_fill(~allowed.any(dim=-2).transpose(1, 2)[..., None], 0.0)
    out = torch.einsum("bhqk,bkhd->bqhd", weights, v)
    lse = lse.masked_fill(~seen, -torch.inf)
    shape = (problem.batch, *problem.grid, problem.heads)
    return out.reshape(*shape, problem.value_dim).to(problem.dtype), lse.transpose(1, 2).reshape(shape)


def _allowed(problem: Problem) -> torch.Tensor:
    """Who sees whom, bool [batch or 1, heads or 1, queries, keys]."""
    pattern = problem.pattern
    if isinstance(pattern, Expiry | Allowed | Routed):
        lives = isinstance(pattern, Expiry)
        relations = visible(pattern.planes, problem.grid[0]) if lives else problem.bound.mask()
        return relations.repeat_interleave(problem.heads // relations.shape[1], dim=1)
    return torch.ops.windeye.mask(pattern.spec, list(problem.grid), list(problem.grid_kv), problem.device)[None, None]


def _dense_bias(problem: Problem, bias: torch.Tensor) -> torch.Tensor:
    """A number per key as [batch, heads, 1, keys]; or the relative table spread out."""
    if problem.pattern.tables:
        return bias.repeat_interleave(problem.heads // bias.shape[1], dim=1)[:, :, None]
    return spread_bias(problem.bound, bias)


def spread_bias(bound: Bound, bias: torch.Tensor) -> torch.Tensor:
    """A relative table as [heads, queries, keys]; pairs without an offset in the table get zero."""
    check_reach(bound, bias.shape[1:])
    index, known = _bias_index(bound, tuple(bias.shape[1:]))
    spread = bias.flatten(1)[:, torch.from_numpy(index).to(bias.device)]
    return spread * torch.from_numpy(known).to(bias.device, bias.dtype)


def _bias_index(bound: Bound, offsets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    steps = bias_steps(bound)
    flat = np.zeros((bound.tokens, bound.tokens_kv), dtype=np.int64)
    known = np.ones_like(flat, dtype=np.bool_)
    query = np.stack(np.unravel_index(np.arange(bound.tokens), bound.grid))
    key = np.stack(np.unravel_index(np.arange(bound.tokens_kv), bound.grid_kv))
    for axis in range(bound.rank):
        q, k = query[axis][:, None], key[axis][None, :]
        away = k - q
        wrapped = [term[axis] for term in bound.terms if term[axis].wraps]
        if wrapped:
            # On a wrapped axis the offset is the one within the query's own unrolled window.
            start = wrapped[0].start[q]
            away = start + (k - start) % bound.grid_kv[axis] - q
        place = away // steps[axis] + offsets[axis] // 2
        known &= (place >= 0) & (place < offsets[axis])
        flat = flat * offsets[axis] + np.clip(place, 0, offsets[axis] - 1)
    return flat, known


@torch.library.custom_op("windeye::mask", mutates_args=())
def mask(spec: str, grid: list[int], grid_kv: list[int], device: torch.device) -> torch.Tensor:
    """The dense relation of a pattern as an operator, so that compiled graphs do not trace the binding."""
    return from_spec(spec).bind(grid, grid_kv).mask().to(device)


@mask.register_fake
def _(_spec: str, grid: list[int], grid_kv: list[int], device: torch.device) -> torch.Tensor:
    return torch.empty((prod(grid), prod(grid_kv)), dtype=torch.bool, device=device)
