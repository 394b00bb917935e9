"""torch's fused attention with a boolean mask, for relations that are dense to begin with.

Every pair is computed, seen or not. On CPUs and GPUs alike; memory beyond the mask does not grow with the pairs.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem
from windeye.patterns import Allowed

name = "sdpa"
JOINS_EXTRA = False


def can_run(problem: Problem) -> str | None:
    """Runs dense masks without bias, dropout or log-sum-exp; the reason names what it cannot do."""
    if not isinstance(problem.pattern, Allowed):
        return f"it serves dense masks, {problem.pattern!r} has a form that other backends read"
    if problem.needs_lse:
        return "torch's fused attention gives no log-sum-exp"
    if problem.has_bias:
        return "it takes a mask and no bias"
    if problem.dropout_p > 0.0:
        return "its dropout does not drop the pairs that the other backends drop"
    return None


def attend(problem: Problem, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """``out``, and NaN for the log-sum-exp that nobody asked for."""
    pattern = problem.pattern
    assert isinstance(pattern, Allowed)
    allowed = pattern.planes
    if allowed.shape[1] != 1:
        allowed = allowed.repeat_interleave(problem.heads // allowed.shape[1], dim=1)
    if operands.key_padding is not None:
        allowed = allowed & ~operands.key_padding[:, None, None]
    # What a kernel makes of a row that sees nothing differs between kernels: let it see all, and cut it out.
    seen = allowed.any(dim=-1, keepdim=True)
    unused = ~_used(allowed, problem)
    key, value = (t.masked_fill(unused, 0.0) for t in (operands.key, operands.value))
    q, k, v = (t.transpose(1, 2) for t in (operands.query, key, value))
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=allowed | ~seen, scale=problem.scale, enable_gqa=problem.heads != problem.kv_heads
    )
    out = out.masked_fill(~seen, 0.0).transpose(1, 2)
    return out, out.new_full(out.shape[:-1], torch.nan, dtype=problem.lse_dtype)


def _used(allowed: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Which keys anybody sees, [batch or 1, keys, kv_heads or 1, 1]: others may hold NaN, and zero times NaN is NaN."""
    used = allowed.any(dim=-2)
    if used.shape[1] != 1:
        used = used.reshape(len(used), problem.kv_heads, -1, used.shape[-1]).any(dim=2)
    return used.transpose(1, 2)[..., None]
