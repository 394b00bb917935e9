"""The oracle: the masked quadratic form in plain torch. Quadratic in memory, obviously right, differentiable twice."""

from __future__ import annotations

from functools import partial

import torch

from windeye.kernels.recurrence import plain
from windeye.kernels.recurrence.features import features, weight
from windeye.kernels.recurrence.problem import Problem

backend = "torch"
form = "parallel"


def can_run(_problem: Problem) -> str | None:
    """The reference runs everything."""
    return None


def _form(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum_{j<=i} weight(<q_i, k_j>) exp(g_{j+1} + ... + g_i) v_j + exp(g_1 + ... + g_i) phi(q_i) state``."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    tokens = q.shape[2]
    scores = weight(problem.feature_map, q @ k.transpose(-1, -2))
    if log_decay is None:
        kept = q.new_ones(tokens, tokens).tril()
        since_start = until_end = q.new_ones(tokens)
    else:
        g = log_decay.transpose(1, 2)
        kept = decay_between(g)
        since_start = torch.exp(g.cumsum(-1))
        until_end = kept[..., -1, :] if tokens else g
    phi_q, phi_k = features(problem.feature_map, q), features(problem.feature_map, k)
    out = (scores * kept) @ v + since_start[..., None] * (phi_q @ state)
    after = (until_end[..., None] * phi_k).transpose(-1, -2) @ v
    if tokens:
        after = after + since_start[..., -1, None, None] * state
    else:
        after = state
    return out.transpose(1, 2), after


attend = partial(plain.run, _form)


def decay_between(log_decay: torch.Tensor) -> torch.Tensor:
    """``exp(g_{j+1} + ... + g_i)`` at [..., i, j], zero for ``j > i``.

    Each sum is made of its own terms and never a difference of two running sums: those lose all digits after a strong
    decay and are NaN after ``-inf``.
    """
    tokens = log_decay.shape[-1]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=log_decay.device).tril(-1)
    terms = torch.where(later, log_decay[..., :, None], 0.0)
    sums = terms.cumsum(-2).masked_fill(~(later | later.new_ones(tokens).diag()), -torch.inf)
    return torch.exp(sums)
