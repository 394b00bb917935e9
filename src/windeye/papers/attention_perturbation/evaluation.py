"""What is measured of a trained classifier: accuracy, accuracy under attack, agreement with gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.data.sequences import derived_seed
from windeye.models import AttentiveClassifier
from windeye.nn.additive import masked_softmax
from windeye.nn.importance import Kind, agreement, gradient_importance
from windeye.nn.importance import Measure as Correlation
from windeye.nn.perturbation import attack
from windeye.papers.attention_perturbation.texts import Texts

Measured = dict[str, float]

RADII = (1.0, 2.0, 5.0, 10.0)
SPREADS = (1.0, 2.0, 5.0)
"""Radii as multiples of the spread of a text's scores: no model can win by growing its scores."""
ACCURACY, SPREAD = "accuracy", "spread of scores"
RANDOM = "random weights, kendall"
KINDS: tuple[Kind, ...] = ("grad_times_input", "grad_l1")
MEASURES: tuple[Correlation, ...] = ("kendall", "pearson")
AGREEMENTS = {
    f"{measure}, {kind.replace('_', ' ')}{', through attention' if through else ''}": (measure, kind, through)
    for measure in MEASURES
    for kind, through in ((KINDS[0], False), (KINDS[1], False), (KINDS[0], True))
}


def attacked(radius: float, steps: int = 1) -> str:
    """The name of a measure.

    Example:
        >>> attacked(2.0), attacked(5.0, 10)
        ('accuracy, attack 2', 'accuracy, attack 5 in 10 steps')
    """
    return f"accuracy, attack {radius:g}{'' if steps == 1 else f' in {steps} steps'}"


def attacked_by_spread(factor: float) -> str:
    """The name of a measure.

    Example:
        >>> attacked_by_spread(2.0)
        'accuracy, attack 2 spreads'
    """
    return f"accuracy, attack {factor:g} spreads"


def measure(model: AttentiveClassifier, embed: Callable[[Tensor], Tensor], texts: Texts, seed: int) -> Measured:
    """All numbers of one model on held-out texts. Agreements are means over the texts that have one."""
    with torch.no_grad():
        words = embed(texts.rows)
        reading = model.read(words, texts.lengths)
        weights = masked_softmax(reading.scores, reading.padding)
    real = ~reading.padding
    spreads = torch.stack([row[mask].std(correction=0) for row, mask in zip(reading.scores, real, strict=True)])

    def loss(scores: Tensor) -> Tensor:
        logits = model.answer(reading, scores)[:, 0]
        return F.binary_cross_entropy_with_logits(logits, texts.labels, reduction="sum")

    def accuracy(step: Tensor | float) -> float:
        with torch.no_grad():
            right = (model.answer(reading, reading.scores + step)[:, 0] > 0) == (texts.labels > 0.5)
        return right.double().mean().item()

    def under(radius: float | Tensor, steps: int = 1) -> float:
        return accuracy(attack(loss, reading.scores, radius, movable=real, steps=steps))

    found = {ACCURACY: accuracy(0.0), SPREAD: spreads.mean().item()}
    found |= {attacked(radius): under(radius) for radius in RADII}
    found |= {attacked(radius, 10): under(radius, 10) for radius in (2.0, 5.0)}
    found |= {attacked_by_spread(factor): under(factor * spreads) for factor in SPREADS}
    for name, (correlation, kind, through) in AGREEMENTS.items():

        def logit(moved: Tensor, through: bool = through) -> Tensor:
            return model.answer(model.read(moved, texts.lengths), through_attention=through)

        importance = gradient_importance(logit, words, kind)
        found[name] = _mean(agreement(weights, importance, real, correlation))
    generator = torch.Generator().manual_seed(derived_seed("random attention", seed))
    drawn = torch.rand(weights.shape, generator=generator).to(weights)
    found[RANDOM] = _mean(agreement(drawn, importance, real))
    return found


def _mean(values: Tensor) -> float:
    """The mean of those that are numbers; zero if none is, as where attention has no order at all."""
    kept = values[~values.isnan()]
    return kept.mean().item() if len(kept) else 0.0
