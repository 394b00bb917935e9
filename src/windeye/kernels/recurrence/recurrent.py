"""The recurrence itself, token by token: the definition of the state, and one decoding step."""

from __future__ import annotations

from functools import partial

import torch

from windeye.kernels.recurrence import plain
from windeye.kernels.recurrence.features import features
from windeye.kernels.recurrence.problem import Problem

backend = "torch"
form = "recurrent"


def can_run(_problem: Problem) -> str | None:
    """Runs everything; a Python loop over tokens."""
    return None


def _form(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``state = exp(g_i) state + phi(k_i) v_i^T``, then ``out_i = phi(q_i) state``: a token sees itself undecayed."""
    phi_q, phi_k = features(problem.feature_map, query), features(problem.feature_map, key)
    outs = []
    for i in range(query.shape[1]):
        if log_decay is not None:
            state = torch.exp(log_decay[:, i])[..., None, None] * state
        state = state + phi_k[:, i, :, :, None] * value[:, i, :, None, :]
        outs.append((phi_q[:, i, :, None, :] @ state)[..., 0, :])
    return torch.stack(outs, dim=1) if outs else torch.zeros_like(value), state


attend = partial(plain.run, _form)
