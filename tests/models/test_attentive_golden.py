"""Attention AT, and iAT as it was released, give the numbers of the official layers and training step."""

import pytest
import torch
import torch.nn.functional as F

from golden import load, same, under
from windeye.models.attentive import AttentiveClassifier, AttentiveConfig
from windeye.nn.additive import masked_softmax
from windeye.nn.perturbation import RULES, PerturbedLoss

CASES = {"at_ragged": "adversarial", "at_lambda_half_eps5": "adversarial", "iat_released": "iat_batch"}
NAMES = {
    "_encoder.lstm.": "encoder.onward.",
    "_attention_layer.attn.0.": "attention.key_proj.",
    "_attention_layer.attn.2.": "attention.score_proj.",
    "_output.": "answers.",
}


def ours(numbers):
    """Tensors under our names."""
    found = {}
    for name, tensor in numbers.items():
        (prefix,) = (p for p in NAMES if name.startswith(p))
        ours = NAMES[prefix] + name.removeprefix(prefix)
        if ours.endswith("_reverse"):
            ours = ours.replace("onward", "back").removesuffix("_reverse")
        found[ours] = tensor
    return found


@pytest.fixture(params=CASES)
def case(request):
    meta, numbers = load("attention-perturbation", request.param)
    x = numbers["input.x"]
    config = AttentiveConfig(vocabulary=2, dim=x.shape[-1], hidden=meta["hidden_per_direction"])
    model = AttentiveClassifier(config).double()
    model.load_state_dict(ours(under("weight.", numbers)) | {"embedding.weight": model.embedding.weight})
    reading = model.read(x, numbers["input.mask"].sum(1))
    rule = RULES[CASES[request.param]](meta["epsilon"])
    label, weight = numbers["input.label"].double(), numbers["input.pos_weight"]

    def loss(scores):
        return F.binary_cross_entropy_with_logits(model.answer(reading, scores)[:, 0], label, pos_weight=weight)

    terms = PerturbedLoss(rule, meta["lam"])(loss, reading.scores, ~reading.padding)
    return meta, numbers, model, reading, terms


def test_the_network_is_the_official_one(case):
    _, numbers, model, reading, _ = case
    real = numbers["input.mask"]
    same(reading.states[real], numbers["output.hidden"][real])
    same(reading.scores[real], numbers["output.scores"][real])
    same(masked_softmax(reading.scores, reading.padding), numbers["output.attention"])
    same(model.answer(reading)[:, 0], numbers["output.logit"])


def test_the_step_and_both_losses_are_the_official_ones(case):
    _, numbers, model, reading, terms = case
    (gradient,) = torch.autograd.grad(terms.clean, reading.scores, retain_graph=True)
    same(gradient, numbers["output.score_gradient"])
    same(terms.step, numbers["output.perturbation"])
    same(masked_softmax(reading.scores + terms.step, reading.padding), numbers["output.attention_perturbed"])
    same(model.answer(reading, reading.scores + terms.step)[:, 0], numbers["output.logit_perturbed"])
    for term, name in ((terms.clean, "clean"), (terms.perturbed, "perturbed"), (terms.total, "total")):
        same(term[None], numbers[f"output.loss_{name}"])


def test_parameters_get_the_gradient_of_two_terms_and_not_the_released_one(case):
    _, numbers, model, _, terms = case
    terms.total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, expected in ours(under("grad_weight_two_term.", numbers)).items():
        same(gradients[name], expected)
    released = ours(under("grad_weight_as_released.", numbers))
    assert released
    clean = ours(under("grad_weight_two_term.", numbers))
    for name, expected in released.items():
        assert not torch.allclose(clean[name], expected, rtol=1e-3)


def test_released_iat_lowers_the_loss():
    meta, numbers = load("attention-perturbation", "iat_released")
    assert numbers["output.loss_perturbed"] < numbers["output.loss_clean"]
    gradient = numbers["output.score_gradient"]
    same(numbers["output.perturbation"], -RULES["adversarial"](meta["epsilon"]).step(gradient, gradient))
