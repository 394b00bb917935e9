"""How much of every earlier gradient is in the weights after each token of a chunk: the chunk mask of the memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class Coefficients(NamedTuple):
    """The weights and the momentum as linear maps of what a chunk starts with and of its gradients ``u_j``.

    After token ``i`` the weights are ``kept_i W + carried_i S - sum_j mask_ij u_j`` with ``W`` and ``S`` weights and
    momentum before the chunk; after the last token the momentum is ``momentum S - sum_j last_j u_j``.
    """

    kept: Float[Tensor, "*rows tokens"]
    carried: Float[Tensor, "*rows tokens"]
    mask: Float[Tensor, "*rows tokens tokens"]
    momentum: Float[Tensor, "*rows"]
    last: Float[Tensor, "*rows tokens"]


def coefficients(
    keep: Float[Tensor, "*rows tokens"],
    momentum: Float[Tensor, "*rows tokens"],
    step_size: Float[Tensor, "*rows tokens"],
    live: Bool[Tensor, "*rows tokens"] | None = None,
) -> Coefficients:
    """The solution of ``S_i = momentum_i S_{i-1} - step_size_i u_i``, ``W_i = keep_i W_{i-1} + S_i`` within a chunk.

    Row by row, by the recurrence itself: nothing is divided and no logarithm is taken, so that gates of exactly 0 and 1
    are exact, in the gradient too. Tokens that are not ``live`` change neither weights nor momentum; no values of the
    gates could say that, for momentum always flows into the weights.

    Source: titans spec, section 2.

    Example:
        >>> half = torch.full((3,), 0.5)
        >>> coefficients(keep=half, momentum=torch.zeros(3), step_size=torch.ones(3)).mask
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.2500, 0.5000, 1.0000]])
    """
    flow = torch.ones_like(keep) if live is None else live.to(keep.dtype)
    if live is not None:
        keep, momentum = keep.masked_fill(~live, 1), momentum.masked_fill(~live, 1)
        step_size = step_size.masked_fill(~live, 0)
    weights, last = _Recurrence.apply(keep, momentum, step_size, flow)  # type: ignore[no-untyped-call]
    return Coefficients(weights[..., 0], weights[..., 1], weights[..., 2:], last[..., 1], last[..., 2:])


class _Recurrence(torch.autograd.Function):
    """Rows over ``2 + tokens`` columns: what the first weights, the first momentum and each gradient contribute."""

    @staticmethod
    def forward(
        ctx: Any, keep: Tensor, momentum: Tensor, step_size: Tensor, flow: Tensor
    ) -> tuple[Float[Tensor, "*rows tokens columns"], Float[Tensor, "*rows columns"]]:
        tokens = keep.shape[-1]
        moved, carried, stepped, flows = (t.movedim(-1, 0)[..., None] for t in (keep, momentum, step_size, flow))
        weight, surge = (keep.new_zeros(*keep.shape[:-1], tokens + 2) for _ in range(2))
        weight[..., 0] = 1
        surge[..., 1] = 1
        weights, surges = [weight], [surge]
        for i in range(tokens):
            surge = surge * carried[i]
            surge[..., 2 + i] = stepped[i, ..., 0]
            weight = torch.addcmul(weight * moved[i], surge, flows[i])
            weights.append(weight)
            surges.append(surge)
        before_and_after, surged = torch.stack(weights), torch.stack(surges)
        ctx.save_for_backward(keep, momentum, flow, before_and_after, surged)
        return before_and_after[1:].movedim(0, -2), surge

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weights: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        keep, momentum, flow, weights, surges = ctx.saved_tensors
        moved, carried, flows = (t.movedim(-1, 0)[..., None] for t in (keep, momentum, flow))
        grads = grad_weights.movedim(-2, 0)
        to_weight, to_surge = torch.zeros_like(grad_last), grad_last
        to_keep, to_momentum, to_step = ([], [], [])  # type: tuple[list[Tensor], list[Tensor], list[Tensor]]
        for i in reversed(range(keep.shape[-1])):
            to_weight = to_weight + grads[i]
            to_surge = torch.addcmul(to_surge, to_weight, flows[i])
            to_keep.append((to_weight * weights[i]).sum(-1))
            to_step.append(to_surge[..., 2 + i])
            to_momentum.append((to_surge * surges[i]).sum(-1))
            to_weight, to_surge = to_weight * moved[i], to_surge * carried[i]
        found = (torch.stack(backwards[::-1], dim=-1) for backwards in (to_keep, to_momentum, to_step))
        return (*found, None)  # type: ignore[return-value]
