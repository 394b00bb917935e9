"""Which small step the scores of attention take: at random, where the loss rises fastest, along score differences.

Every rule gives one step ``r`` per example, constant (no gradient flows through it) and zero where nothing may move.
``u`` is the gradient of the loss with respect to the scores.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Radius = float | Float[Tensor, " batch"]


@dataclass(frozen=True)
class Rule(ABC):
    """How a step follows from scores and gradient. `windeye.nn.perturbation.words` has a rule for embeddings."""

    radius: float
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.radius, bool) or not isinstance(self.radius, int | float):
            raise TypeError(f"radius must be a number, got {self.radius!r}")
        if not 0 <= self.radius < math.inf:
            raise ValueError(f"radius must be at least 0 and finite, got {self.radius}")

    @abstractmethod
    def step(
        self,
        scores: Float[Tensor, "batch *axes"],
        gradient: Float[Tensor, "batch *axes"] | None,
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """The step ``r``.

        Args:
            scores: where the step begins.
            gradient: of the loss with respect to the scores; None for rules that need none.
            movable: True where scores may move, broadcast over ``scores``; None: everywhere.
        """


@dataclass(frozen=True)
class Random(Rule):
    """``r = radius n / |n|`` with ``n ~ N(0, 1)`` from torch's generator: knows nothing of the loss (Attention RP).

    Example:
        >>> Random(2.0).step(torch.zeros(3, 5), None).norm(dim=1).round(decimals=4)
        tensor([2., 2., 2.])
    """

    needs_gradient: ClassVar[bool] = False

    def step(
        self,
        scores: Float[Tensor, "batch *axes"],
        gradient: Float[Tensor, "batch *axes"] | None,  # noqa: ARG002 - blind to it
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """See `Rule.step`."""
        noise = torch.randn(scores.shape, dtype=scores.dtype, device=scores.device)
        return to_radius(only(noise, movable), self.radius)


@dataclass(frozen=True)
class Adversarial(Rule):
    """``r = radius u / |u|``: of all steps of this length the one along which the loss rises fastest (Attention AT).

    Example:
        >>> Adversarial(5.0).step(torch.zeros(1, 2), torch.tensor([[3e-20, -4e-20]]))
        tensor([[ 3., -4.]])
    """

    def step(
        self,
        scores: Float[Tensor, "batch *axes"],  # noqa: ARG002 - the gradient says it all
        gradient: Float[Tensor, "batch *axes"] | None,
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """See `Rule.step`."""
        return to_radius(only(given(gradient), movable), self.radius)


@dataclass(frozen=True)
class ReleasedDifferences(Rule):
    """Minus `Adversarial`: what the released code of Attention iAT computes, a step that lowers the loss.

    There the differences between scores are multiplied by coefficients that are zero, and the gradient that is kept is
    that of the scores; tests/models/test_attentive_golden.py pins it. Here to reproduce that code, for nothing else.

    Example:
        >>> ReleasedDifferences(5.0).step(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]]))
        tensor([[-3.,  4.]])
    """

    def step(
        self,
        scores: Float[Tensor, "batch *axes"],  # noqa: ARG002 - the gradient says it all
        gradient: Float[Tensor, "batch *axes"] | None,
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """See `Rule.step`."""
        return -to_radius(only(given(gradient), movable), self.radius)


@dataclass(frozen=True)
class ScoreDifferences(Rule):
    """A step told as "attention from one token to another": ``r_t = sum_k b_tk d_tk`` with ``d_tk ~ s_t - s_k``.

    The coefficients are the worst ones of their length, ``b = radius g / |g|`` with ``g_tk = u_t d_tk``, so that

        ``r_t = radius u_t m_t^2 / sqrt(sum_j u_j^2 m_j^2)``,  ``m_t = |d_t|``

    with the norm over all pairs of an example. Differences are taken along the last axis: within a row of attention.

    Args:
        radius: length of the coefficients.
        scaled_by: "row" makes every ``d_t`` a unit vector (Attention iAT as the paper is read here). Then every
            ``m_t`` is 1 unless all scores of the row are equal, and the step **is** that of `Adversarial`. "sentence"
            divides by the largest difference in the example, so that scores far from the others move more; the
            length of the step is then not the radius.

    Source: attention-perturbation spec; the closed form and "sentence" are ours. Equal to automatic differentiation by
    the coefficients, see tests/nn/test_perturbation.py.

    Example:
        >>> scores, gradient = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[3.0, -4.0, 0.0]])
        >>> ScoreDifferences(5.0).step(scores, gradient)
        tensor([[ 3., -4.,  0.]])
        >>> ScoreDifferences(5.0, "sentence").step(scores, gradient)
        tensor([[ 4.2735, -2.2792,  0.0000]])
    """

    scaled_by: Literal["row", "sentence"] = "row"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaled_by not in ("row", "sentence"):
            raise ValueError(f'scaled_by must be "row" or "sentence", got {self.scaled_by!r}')

    def step(
        self,
        scores: Float[Tensor, "batch *axes"],
        gradient: Float[Tensor, "batch *axes"] | None,
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """See `Rule.step`; differences are only taken between scores that may move."""
        steepest = only(given(gradient), movable)
        length = self._lengths(scores.detach(), movable)
        # The step has the direction u m^2 but the length of u m: both come from one normalisation.
        return to_radius(steepest * length, self.radius) * length

    def _lengths(self, scores: Tensor, movable: Tensor | None) -> Tensor:
        """``m_t``. Around the mean of the row, ``sum_k (s_t - s_k)^2 = n s_t^2 + sum_k s_k^2``: no pair is formed."""
        seen = torch.ones_like(scores, dtype=torch.bool) if movable is None else movable.expand_as(scores)
        highest = scores.masked_fill(~seen, -math.inf).amax(-1, keepdim=True)
        lowest = scores.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
        spread = (highest - lowest).clamp(min=0)  # a row without scores has minus infinity
        if self.scaled_by == "row":
            return (spread > 0).to(scores.dtype).expand_as(scores)
        largest = spread.flatten(1).amax(1).view(-1, *[1] * (scores.dim() - 1))
        count = seen.sum(-1, keepdim=True)
        mean = scores.masked_fill(~seen, 0).sum(-1, keepdim=True) / count.clamp(min=1)
        relative = torch.where(largest > 0, (scores - mean) / largest, 0).masked_fill(~seen, 0)
        lengths = (count * relative.square() + relative.square().sum(-1, keepdim=True)).sqrt()
        return torch.where(spread > 0, lengths, 0)


RULES: Mapping[str, Callable[[float], Rule]] = {
    "random": Random,
    "adversarial": Adversarial,
    "iat_sentence": ScoreDifferences,
    "iat_norm_free": lambda radius: ScoreDifferences(radius, scaled_by="sentence"),
    "iat_batch": ReleasedDifferences,
}
"""Rules for scores by the names of the paper's variants, each from its radius."""


def to_radius(direction: Float[Tensor, "batch *axes"], radius: Radius) -> Float[Tensor, "batch *axes"]:
    """Directions brought to a length, one per example; where there is no direction, nothing moves.

    Example:
        >>> to_radius(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 10.0)
        tensor([[6., 8.],
                [0., 0.]])
    """
    direction = direction.detach()
    flat = direction.flatten(1)
    # First by the largest entry: squares of a tiny gradient would vanish, and its direction with them.
    largest = flat.abs().amax(1, keepdim=True)
    unit = torch.where(largest > 0, flat / largest, 0)
    unit = torch.where(largest > 0, unit / unit.norm(dim=1, keepdim=True), 0)
    scale = radius[:, None] if isinstance(radius, Tensor) else radius
    return (scale * unit).view_as(direction)


def only(direction: Tensor, movable: Tensor | None) -> Tensor:
    """Zero where nothing may move."""
    return direction if movable is None else direction.masked_fill(~movable, 0)


def given(gradient: Tensor | None) -> Tensor:
    """The gradient, of a rule that needs one."""
    if gradient is None:
        raise ValueError("gradient is None, but this rule follows the gradient of the loss with respect to the scores")
    return gradient
