"""Training against a perturbation of the scores: the loss, plus the loss after the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.perturbation.rules import Rule

Loss = Callable[[Tensor], Tensor]
"""From scores to one number: whatever lies behind the scores, the labels included."""


class PerturbedTerms(NamedTuple):
    """What `PerturbedLoss` gives; the last two are None where nothing was perturbed."""

    total: Float[Tensor, ""]
    clean: Float[Tensor, ""]
    perturbed: Float[Tensor, ""] | None
    step: Float[Tensor, "batch *axes"] | None


class PerturbedLoss(nn.Module):
    """``L(s) + weight L(s + r)`` with the step ``r`` of a rule, held constant.

    ``s`` is any tensor that the loss depends on: scores of additive attention [batch, n], of multi-head attention
    [batch, heads, queries, keys], an additive bias of a fused kernel, embeddings. The gradient that a rule needs is
    taken down to ``s`` and no further, so what computes ``s`` runs forward and backward once.

    In evaluation mode, and with ``weight=0``, nothing is perturbed and the total is ``L(s)``.

    Args:
        rule: one of `windeye.nn.perturbation.RULES`, or `WordDirections` for embeddings.
        weight: of the second term.

    Differs from: the released code, which leaves the first backward pass in the parameters and so trains on
    ``2 L(s) + weight L(s + r)``.

    Raises:
        ValueError: a weight that is negative or not finite.

    Source: attention-perturbation spec; equal to the official step, see tests/models/test_attentive_golden.py.

    Example:
        >>> from windeye.nn.perturbation import Adversarial
        >>> scores = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
        >>> terms = PerturbedLoss(Adversarial(0.5))(lambda s: -s.log_softmax(-1)[:, 0].mean(), scores)
        >>> bool(terms.perturbed > terms.clean), round(terms.step.norm().item(), 6)
        (True, 0.5)
        >>> terms.total.backward()
    """

    def __init__(self, rule: Rule, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        self.rule, self.weight = rule, weight

    def forward(
        self,
        loss: Loss,
        scores: Float[Tensor, "batch *axes"],
        movable: Bool[Tensor, "..."] | None = None,
    ) -> PerturbedTerms:
        """Both terms and their sum; call ``total.backward()`` once.

        Args:
            loss: called with ``scores``, then with ``scores + r``. The step is one per entry of the batch, so entries
                must not see each other's scores; the mean or sum over them is as good as any.
            scores: part of the graph, unless the rule is random.
            movable: True where scores may move, broadcast over ``scores``: real tokens, one head, one query's row.

        Raises:
            ValueError: there is no graph to take the gradient in, or the loss is not one number that depends on the
                scores, or movable does not fit. TypeError: movable is not boolean.
        """
        check_movable(movable, scores)
        clean = one_number(loss(scores))
        if not self.training or self.weight == 0:
            return PerturbedTerms(clean, clean, None, None)
        gradient = gradient_at(scores, clean) if self.rule.needs_gradient else None
        step = self.rule.step(scores, gradient, movable)
        perturbed = one_number(loss(scores + step))
        return PerturbedTerms(clean + self.weight * perturbed, clean, perturbed, step)

    def extra_repr(self) -> str:
        return f"{self.rule}, weight={self.weight}"


def gradient_at(scores: Float[Tensor, "batch *axes"], loss: Float[Tensor, ""]) -> Float[Tensor, "batch *axes"]:
    """The gradient of a loss with respect to scores, leaving parameters and the graph as they are.

    Raises:
        ValueError: there is no graph between the two.
    """
    if not scores.requires_grad:
        remedy = "make them with requires_grad" if torch.is_grad_enabled() else "do not train under torch.no_grad()"
        raise ValueError(f"scores are not part of a graph, so the loss has no gradient there; {remedy}")
    # A loss without a graph at all is, for the caller, the same mistake as one whose graph misses the scores.
    found = torch.autograd.grad(loss, scores, retain_graph=True, allow_unused=True) if loss.requires_grad else (None,)
    if found[0] is None:
        raise ValueError("the loss does not depend on the scores that it was called with")
    return found[0]


def one_number(loss: Tensor) -> Float[Tensor, ""]:
    """The loss, which must be a scalar."""
    if loss.numel() != 1:
        raise ValueError(f"loss must give one number, got shape {tuple(loss.shape)}; take the mean or the sum")
    return loss.reshape(())


def check_movable(movable: Tensor | None, scores: Tensor) -> None:
    """Refuse a mask that is not boolean or does not spread over the scores."""
    if scores.dim() < 2:
        raise ValueError(f"scores must be [batch, ...] with at least two axes, got shape {tuple(scores.shape)}")
    if movable is None:
        return
    if movable.dtype != torch.bool:
        raise TypeError(f"movable must be boolean, True where scores may move, got {movable.dtype}")
    sizes = zip(reversed(movable.shape), reversed(scores.shape), strict=False)
    if movable.dim() > scores.dim() or any(own not in (1, size) for own, size in sizes):
        raise ValueError(f"movable {tuple(movable.shape)} does not spread over scores {tuple(scores.shape)}")
