"""Any call brought down to plain ones, so that a form written in torch is its equation and nothing else.

Half types become float32, key heads are repeated for the query heads they serve, the denominator becomes one more value
column of ones, padded tokens become tokens that add nothing and forget nothing, packed sequences are run one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from windeye.kernels.recurrence.problem import EPSILON, Problem, check_values

Form = Callable[
    [Problem, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor],
    tuple[torch.Tensor, torch.Tensor],
]
"""``form(problem, query, key, value, log_decay, state)`` on [batch, tokens, heads, dim]: sums and next state."""


def run(
    form: Form,
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(out, final_state)`` of any call by a form that knows plain ones."""
    if not torch.compiler.is_compiling():
        check_values(problem.tokens, log_decay, cu_seqlens, lengths)
    wide = problem.state_dtype
    group = problem.heads // problem.kv_heads
    q, k, v = (t.to(wide) for t in (query, key, value))
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    if problem.normalize:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    g = None if log_decay is None else log_decay.to(wide).expand(query.shape[:3])
    state = initial_state
    if state is None:
        state = torch.zeros(problem.state_shape, dtype=wide, device=query.device)
    padded = None
    if lengths is not None:
        padded = torch.arange(problem.tokens, device=query.device) >= lengths.to(query.device)[:, None]
        q, k, v = (t.masked_fill(padded[..., None, None], 0.0) for t in (q, k, v))
        g = None if g is None else g.masked_fill(padded[..., None], 0.0)
    if cu_seqlens is None:
        sums, state = form(problem, q, k, v, g, state)
    else:
        bounds = cu_seqlens.tolist()
        parts = [
            form(problem, q[:, a:b], k[:, a:b], v[:, a:b], None if g is None else g[:, a:b], state[s : s + 1])
            for s, (a, b) in enumerate(pairwise(bounds))
        ]
        sums = torch.cat([sums for sums, _ in parts], dim=1)
        state = torch.cat([after for _, after in parts], dim=0)
    out = problem.scale * finish(problem, sums)
    if padded is not None:
        out = out.masked_fill(padded[..., None, None], 0.0)
    return out.to(query.dtype), state


def finish(problem: Problem, sums: torch.Tensor) -> torch.Tensor:
    """Divide by the denominator column, where there is one."""
    if not problem.normalize:
        return sums
    return sums[..., :-1] / (sums[..., -1:] + EPSILON)
