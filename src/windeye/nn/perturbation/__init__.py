"""Small steps of attention scores: to train against, to attack with.

>>> import torch, torch.nn.functional as F
>>> from windeye.nn import AdditiveAttention
>>> from windeye.nn.additive import masked_softmax
>>> from windeye.nn.perturbation import Adversarial, PerturbedLoss
>>> tokens, labels = torch.randn(4, 7, 16), torch.tensor([0, 1, 1, 0])
>>> attention, readout = AdditiveAttention(16, hidden=8), torch.nn.Linear(16, 2)
>>> def loss(scores):
...     return F.cross_entropy(readout(attention.pool(tokens, masked_softmax(scores))), labels)
>>> terms = PerturbedLoss(Adversarial(radius=2.0))(loss, attention.scores(tokens))
>>> terms.total.backward()
"""

from windeye.nn.perturbation.attack import attack
from windeye.nn.perturbation.inside import loss_inside
from windeye.nn.perturbation.loss import PerturbedLoss, PerturbedTerms
from windeye.nn.perturbation.rules import (
    RULES,
    Adversarial,
    Random,
    ReleasedDifferences,
    Rule,
    ScoreDifferences,
)
from windeye.nn.perturbation.words import WordDirections, frequency_normalised

__all__ = [
    "RULES",
    "Adversarial",
    "PerturbedLoss",
    "PerturbedTerms",
    "Random",
    "ReleasedDifferences",
    "Rule",
    "ScoreDifferences",
    "WordDirections",
    "attack",
    "frequency_normalised",
    "loss_inside",
]
