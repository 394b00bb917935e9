"""Attacks for evaluation: how far an answer holds when its attention scores are moved against it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.nn.mixer import check_count
from windeye.nn.perturbation.loss import Loss, check_movable, gradient_at, one_number
from windeye.nn.perturbation.rules import only, to_radius


def attack(
    loss: Loss,
    scores: Float[Tensor, "batch *axes"],
    radius: float | Float[Tensor, " batch"],
    *,
    movable: Bool[Tensor, "..."] | None = None,
    steps: int = 1,
) -> Float[Tensor, "batch *axes"]:
    """The step of at most ``radius`` that makes the loss as large as gradient ascent can.

    One step goes the whole radius along the gradient. More steps go ``2.5 radius / steps`` each and are projected back
    into the ball. Works on models in evaluation mode and under ``no_grad``; parameters and their gradients stay as they
    are.

    Args:
        loss: from scores to one number; entries of the batch must not see each other's scores.
        scores: where the attack begins; need not be part of a graph.
        radius: Euclidean length of the step, one for all or one per entry.
        movable: True where scores may move, broadcast over ``scores``.
        steps: of gradient ascent.

    Raises:
        ValueError: a negative radius, fewer steps than one, wrong shapes, a loss that does not depend on the scores.
        TypeError: movable is not boolean, steps is not an integer.

    Source: attention-perturbation spec (ours).

    Example:
        >>> scores = torch.tensor([[0.0, 1.0, 2.0]])
        >>> loss = lambda s: -s.log_softmax(-1)[:, 0].mean()
        >>> one, ten = (scores + attack(loss, scores, 2.0, steps=steps) for steps in (1, 10))
        >>> bool(loss(ten) >= loss(one) > loss(scores))
        True
    """
    check_movable(movable, scores)
    check_count("steps", steps)
    lengths = torch.as_tensor(radius, dtype=scores.dtype, device=scores.device).expand(scores.shape[0])
    if not bool((lengths >= 0).all() & lengths.isfinite().all()):
        raise ValueError(f"radius must be at least 0 and finite, got {radius}")
    start = scores.detach()
    found = torch.zeros_like(start)
    stride = lengths if steps == 1 else 2.5 * lengths / steps
    for _ in range(steps):
        with torch.enable_grad():
            here = (start + found).requires_grad_()
            gradient = gradient_at(here, one_number(loss(here)))
        found = within(found + to_radius(only(gradient, movable), stride), lengths)
    return found


def within(step: Float[Tensor, "batch *axes"], lengths: Float[Tensor, " batch"]) -> Float[Tensor, "batch *axes"]:
    """Steps that are too long, shortened to their length.

    Example:
        >>> within(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([1.0, 2.0]))
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """
    norms = step.flatten(1).norm(dim=1)
    shrunk = torch.where(norms > lengths, lengths / norms, 1)
    return step * shrunk.view(-1, *[1] * (step.dim() - 1))
