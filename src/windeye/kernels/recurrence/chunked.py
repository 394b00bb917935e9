"""The chunked form in torch: quadratic inside a chunk, a carried state between chunks, memory linear in tokens.

Autograd does the backward pass, so every device and second derivatives work.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from windeye.kernels.recurrence import plain
from windeye.kernels.recurrence.features import features, weight
from windeye.kernels.recurrence.problem import Problem
from windeye.kernels.recurrence.reference import decay_between

backend = "torch"
form = "chunk"
CHUNK = 64


def can_run(_problem: Problem) -> str | None:
    """Runs everything."""
    return None


def _form(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor | None,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Four steps: states of chunks, a scan over them, the sums inside a chunk, and what the carried state adds."""
    tokens = query.shape[1]
    if tokens == 0:
        return torch.zeros_like(value), state
    size = min(problem.chunk_size or CHUNK, tokens)
    # Tokens that fill up the last chunk have value zero and no decay: they add nothing and forget nothing.
    q, k, v = (_split(t, size) for t in (query, key, value))
    if log_decay is None:
        kept = q.new_ones(size, size).tril()
        since_start, until_end, whole = q.new_ones(size), q.new_ones(size), None
    else:
        g = _split(log_decay[..., None], size)[..., 0]
        kept = decay_between(g)
        since_start, until_end = torch.exp(g.cumsum(-1)), kept[..., -1, :]
        whole = since_start[..., -1, None, None]
    phi_q, phi_k = features(problem.feature_map, q), features(problem.feature_map, k)
    added = (until_end[..., None] * phi_k).transpose(-1, -2) @ v
    states = []
    # Unbound, not indexed: the gradient of an index is as large as all chunks together.
    factors = [None] * q.shape[2] if whole is None else whole.unbind(2)
    for own, factor in zip(added.unbind(2), factors, strict=True):
        states.append(state)
        state = own + (state if factor is None else factor * state)
    scores = weight(problem.feature_map, q @ k.transpose(-1, -2))
    out = (scores * kept) @ v + since_start[..., None] * (phi_q @ torch.stack(states, dim=2))
    return out.flatten(2, 3)[:, :, :tokens].transpose(1, 2), state


attend = partial(plain.run, _form)


def _split(x: torch.Tensor, size: int) -> torch.Tensor:
    """[batch, tokens, heads, dim] to [batch, heads, chunks, size, dim], filled up with zeros."""
    x = F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % size))
    return x.reshape(*x.shape[:2], -1, size, x.shape[-1])
