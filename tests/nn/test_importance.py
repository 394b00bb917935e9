"""Importance by gradients, and its agreement with attention weights."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from windeye.nn.importance import agreement, gradient_importance


def test_importance_of_a_function_whose_gradient_is_known():
    words = torch.randn(3, 4, 5, dtype=torch.float64)
    slope = torch.randn(4, 5, dtype=torch.float64)
    for kind, raw in (
        ("grad_times_input", (2 * slope * words * words).sum(-1).abs()),
        ("grad_l1", (2 * slope * words).abs().sum(-1)),
    ):
        found = gradient_importance(lambda w: (slope * w.square()).sum((1, 2)), words, kind)
        torch.testing.assert_close(found, raw / raw.sum(1, keepdim=True))


def test_importance_needs_no_graph_and_leaves_none():
    words = torch.randn(2, 3, 4, requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(4))
    with torch.no_grad():
        found = gradient_importance(lambda w: (w @ weight).sum(1, keepdim=True), words)
    assert not found.requires_grad
    assert words.grad is None
    assert weight.grad is None


def test_a_flat_output_has_no_important_word():
    assert gradient_importance(lambda w: 0 * w.sum((1, 2)), torch.randn(2, 3, 4)).eq(0).all()


def tau_b(a, b):
    """Pairs counted one by one."""
    pairs = list(combinations(range(len(a)), 2))
    sign = [(math.copysign(1, x) if x else 0, math.copysign(1, y) if y else 0) for x, y in
            ((a[i] - a[j], b[i] - b[j]) for i, j in pairs)]  # fmt: skip
    untied = [sum(s[side] != 0 for s in sign) for side in (0, 1)]
    return sum(x * y for x, y in sign) / math.sqrt(untied[0] * untied[1])


def pearson(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return top / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=9))
def test_agreement_counts_real_words_alone(words):
    a, b = (torch.tensor([[w[i] / 4 for w in words]]) for i in (0, 1))
    real = torch.tensor([[w[2] for w in words]])
    kept = [(x / 4, y / 4) for x, y, is_real in words if is_real]
    for measure, expected in (("kendall", tau_b), ("pearson", pearson)):
        found = agreement(a, b, real, measure).item()
        if len({x for x, _ in kept}) < 2 or len({y for _, y in kept}) < 2:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(expected(*zip(*kept, strict=True)), abs=1e-12)


def test_agreement_is_that_of_scipy_on_long_texts():
    a, b = torch.randn(2, 3, 200, dtype=torch.float64)
    b = (a + b).round(decimals=1)  # with ties
    real = torch.ones(3, 200, dtype=torch.bool)
    for measure, known in (("kendall", stats.kendalltau), ("pearson", stats.pearsonr)):
        expected = [known(x, y)[0] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
        assert agreement(a, b, real, measure).tolist() == pytest.approx(expected, abs=1e-12)


W = torch.zeros(2, 3, 4)
R = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_importance(lambda w: w.sum((1, 2)), W, "l2"), 'kind must be "grad_times_input" or "grad_l1"'),
        (lambda: gradient_importance(lambda w: w.sum(2), W), r"one number per entry of 2, got shape \(2, 3\)"),
        (lambda: gradient_importance(lambda _: torch.ones(2), W), "output does not depend on the words"),
        (
            lambda: agreement(W[..., 0], W[..., 0], R[:, :2]),
            r"must be of one shape and not empty, got \(2, 3\), \(2, 3\), \(2, 2\)",
        ),
        (lambda: agreement(W[..., 0], W[..., 0], R, "spearman"), 'measure must be "kendall" or "pearson"'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
