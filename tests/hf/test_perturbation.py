"""Scores inside a model of transformers are perturbed as an additive mask perturbs them."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from windeye.hf import attach
from windeye.models import transformer
from windeye.nn.perturbation import Adversarial, PerturbedLoss, attack
from windeye.nn.perturbation.inside import loss_inside
from windeye.nn.perturbation.loss import gradient_at
from windeye.sites import Keys, Where

LENGTHS = torch.tensor([6, 4])


@pytest.fixture
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager",
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randint(1, 30, (2, 6)), (torch.arange(6) < LENGTHS[:, None]).long()


READOUT = torch.linspace(-1, 1, 16, dtype=torch.float64)


def softplus(states):
    return F.softplus(8 * states.last_hidden_state[:, 0] @ READOUT).mean()


def test_the_row_of_the_first_token_moves_as_by_an_additive_mask(bert, batch):
    ids, mask = batch
    real = mask.bool()[:, None, None]
    hidden = torch.zeros(2, 2, 6, 6, dtype=torch.float64).masked_fill(~real, torch.finfo(torch.float64).min)

    def by_mask(added):
        row = torch.cat([added, torch.zeros(2, 2, 5, 6, dtype=torch.float64)], dim=2)
        return softplus(bert(ids, attention_mask=hidden + row))

    zeros = torch.zeros(2, 2, 1, 6, dtype=torch.float64, requires_grad=True)
    expected = PerturbedLoss(Adversarial(3.0))(by_mask, zeros, real)
    weights = list(bert.parameters())
    wanted = torch.autograd.grad(expected.total, weights, allow_unused=True)
    with attach(bert):
        inside = loss_inside(bert, Where(rows=Keys.at(0)), lambda: softplus(bert(ids, attention_mask=mask)))
        terms = PerturbedLoss(Adversarial(3.0))(inside, zeros, real)
        found = torch.autograd.grad(terms.total, weights, allow_unused=True)
    torch.testing.assert_close(terms.step, expected.step, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(terms.total, expected.total)
    assert terms.perturbed > terms.clean
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_heads_that_are_not_named_do_not_move(bert, batch):
    ids, mask = batch
    zeros = torch.zeros(2, 2, 1, 6, dtype=torch.float64, requires_grad=True)
    with attach(bert):
        inside = loss_inside(bert, Where(heads=(1,), rows=Keys.at(0)), lambda: softplus(bert(ids, attention_mask=mask)))
        gradient = gradient_at(zeros, inside(zeros))
        step = attack(inside, zeros, 2.0, movable=mask.bool()[:, None, None])
        assert inside(step) > inside(torch.zeros_like(step))
    assert gradient[:, 0].eq(0).all()
    assert gradient[:, 1].abs().sum() > 0
    assert step[:, 0].eq(0).all()
    assert step[1, :, :, 4:].eq(0).all()


def test_what_is_added_must_fit(batch):
    model = transformer(layers=1, dim=16, heads=2, vocab_size=30)
    inside = loss_inside(model, Where(), lambda: model(batch[0]).sum())
    with pytest.raises(ValueError, match=r"must be \[batch 2, heads 2 or 1, 1, keys 6\], got shape \(2, 2, 6, 6\)"):
        inside(torch.zeros(2, 2, 6, 6))
    with pytest.raises(IndexError, match="layer"):
        loss_inside(model, Where(layers=(7,)), lambda: model(batch[0]).sum())(torch.zeros(2, 1, 1, 6))
