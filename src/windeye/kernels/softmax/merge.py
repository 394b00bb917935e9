"""Exact union of softmax branches over disjoint key sets, from their outputs and log-sum-exps."""

from __future__ import annotations

import torch


def merge_branches(
    branches: tuple[tuple[torch.Tensor, torch.Tensor], ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``lse = log sum exp(lse_i)``, ``out = sum out_i exp(lse_i - lse)``; in float32, or float64 if any branch is.

    A branch that saw nothing has ``lse = -inf`` and weighs nothing; if no branch saw anything the row stays zero.
    """
    wide = torch.float64 if any(lse.dtype == torch.float64 for _, lse in branches) else torch.float32
    stacked = torch.stack([lse.to(wide) for _, lse in branches])
    top = stacked.detach().amax(dim=0)
    top = torch.where(torch.isneginf(top), torch.zeros_like(top), top)
    weights = torch.exp(stacked - top)
    total = weights.sum(dim=0)
    empty = total == 0
    share = weights / torch.where(empty, torch.ones_like(total), total)
    out = sum(
        (part.to(wide) * w[..., None] for (part, _), w in zip(branches, share, strict=True)),
        start=torch.zeros((), dtype=wide, device=top.device),
    )
    lse = top + torch.log(torch.where(empty, torch.ones_like(total), total))
    lse = lse.masked_fill(empty, -torch.inf)
    assert isinstance(out, torch.Tensor)
    return out.to(branches[0][0].dtype), lse
