"""Accuracy and perplexity are those of the formulas, over every judged position alike."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from windeye.data.tasks import IGNORED, MQAR
from windeye.train import score
from windeye.train.metrics import logits_of, token_loss

TASK = MQAR(vocabulary=32, length=16, pairs=2)


def reader(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Embedding(32, 8), nn.Dropout(dropout), nn.Linear(8, 32))


def test_every_judged_position_counts_the_same():
    """Batches of unequal size, against the formula written out."""
    model = reader()
    data = [TASK.sample(count, seed=count) for count in (1, 7)]
    found = score(model, data)
    hits, losses = [], []
    for tokens, targets in data:
        log_p = model(tokens).double().log_softmax(dim=-1)
        for row, place in (targets != IGNORED).nonzero().tolist():
            hits.append(log_p[row, place].argmax().item() == targets[row, place].item())
            losses.append(-log_p[row, place, targets[row, place]].item())
    assert len(losses) == 16
    assert found["accuracy"] == pytest.approx(sum(hits) / 16)
    assert found["perplexity"] == pytest.approx(math.exp(math.fsum(losses) / 16), rel=1e-6)


def test_a_confident_mistake_is_expensive_but_finite():
    model = nn.Embedding.from_pretrained(200.0 * torch.eye(4))
    found = score(model, [(torch.tensor([[0]]), torch.tensor([[1]]))])
    assert found == {"accuracy": 0.0, "perplexity": pytest.approx(math.exp(200), rel=1e-6)}


def test_a_broken_model_does_not_score_well():
    model = nn.Embedding.from_pretrained(torch.full((4, 4), math.nan))
    assert math.isnan(score(model, [(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))])["perplexity"])


def test_it_leaves_the_mode_alone_and_refuses_nothing_to_judge():
    model = reader(dropout=0.9)
    assert score(model, [TASK.sample(4, seed=0)]) == score(model, [TASK.sample(4, seed=0)])
    assert model.training
    tokens, targets = TASK.sample(4, seed=0)
    with pytest.raises(ValueError, match="batches have no judged position"):
        score(model, [(tokens, torch.full_like(targets, IGNORED))])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=re.escape("targets must have the shape of the logits without their last")):
        token_loss(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"the model must return logits or \(logits, ...\), got dict"):
        logits_of({"logits": torch.zeros(1)})
