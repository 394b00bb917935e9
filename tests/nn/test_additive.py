"""Additive attention: masked, ragged, with queries; what is padded never counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.nn import AdditiveAttention
from windeye.nn.additive import masked_softmax


def by_hand(layer, tokens, lengths, query=None):
    """One text at a time, one token at a time."""
    rows = []
    for row, length in enumerate(lengths):
        scores = []
        for token in tokens[row, :length]:
            inside = layer.key_proj.weight @ token + layer.key_proj.bias
            if query is not None:
                inside = inside + layer.query_proj.weight @ query[row]
            scores.append((layer.score_proj.weight[0] * inside.tanh()).sum())
        shares = [s.exp() for s in scores]
        rows.append(sum(a * t for a, t in zip(shares, tokens[row], strict=False)) / sum(shares))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    dims=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 3)),
    extra=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_it_is_the_formula_with_its_gradient(lengths, dims, extra, seed):
    torch.manual_seed(seed)
    dim, hidden, query_dim = dims
    layer = AdditiveAttention(dim, hidden, query_dim or None).double()
    n = max(lengths) + extra
    tokens = torch.randn(n, len(lengths), dim, dtype=torch.float64).transpose(0, 1).requires_grad_()
    query = torch.randn(len(lengths), query_dim, dtype=torch.float64) if query_dim else None
    padding = torch.arange(n) >= torch.tensor(lengths)[:, None]
    out, weights = layer(tokens, padding=padding, query=query, return_weights=True)
    expected = by_hand(layer, tokens, lengths, query)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(lengths), dtype=torch.float64))
    assert weights[padding].eq(0).all()
    given_out = torch.randn_like(out)
    leaves = [tokens, *layer.parameters()]
    got = torch.autograd.grad(out, leaves, given_out)
    for ours, theirs in zip(got, torch.autograd.grad(expected, leaves, given_out), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-7)


def test_gradients_are_those_of_differences():
    layer = AdditiveAttention(3, 4, 2).double()
    padding = torch.tensor([[False, False, False], [False, False, True]])
    tokens = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, q: layer(t, padding=padding, query=q), (tokens, query))


def test_nan_at_padding_stays_there_forward_and_backward():
    layer = AdditiveAttention(4, 3)
    padding = torch.tensor([[False, False, True], [True, True, True]])
    tokens = torch.randn(2, 3, 4)
    clean = layer(tokens.masked_fill(padding[..., None], 0), padding=padding)
    tokens[padding] = float("nan")
    tokens.requires_grad_()
    out = layer(tokens, padding=padding)
    torch.testing.assert_close(out, clean)
    assert out[1].eq(0).all()
    pooled = layer.pool(tokens, masked_softmax(torch.zeros(2, 3), padding), padding)
    (gradient,) = torch.autograd.grad(pooled.sum(), tokens)
    assert gradient.isfinite().all()
    assert gradient[padding].eq(0).all()


def test_masked_softmax_of_large_scores_and_of_nothing():
    scores = torch.tensor([[1e30, 1e30, -1e30], [5.0, 1.0, 2.0]], requires_grad=True)
    weights = masked_softmax(scores, torch.tensor([[False, False, False], [True, True, True]]))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    weights.square().sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[1].eq(0).all()


def test_dropout_drops_in_training_only():
    layer = AdditiveAttention(4, 3, dropout=0.5)
    tokens = torch.randn(64, 9, 4)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))


X = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdditiveAttention(0, 3), "dim must be at least 1"),
        (lambda: AdditiveAttention(4, 2.5), "hidden must be an integer"),
        (lambda: AdditiveAttention(4, 3)(X[..., :3]), r"tokens must be \[batch, n, dim 4\], got shape \(2, 3, 3\)"),
        (lambda: AdditiveAttention(4, 3)(X, query=X[:, 0]), "query is given but this layer was built without"),
        (lambda: AdditiveAttention(4, 3, 5)(X), "query is missing: this layer was built with query_dim"),
        (lambda: AdditiveAttention(4, 3, 5)(X, query=X[:, 0]), r"query must be \[batch 2, query_dim 5\], got \(2, 4\)"),
        (lambda: AdditiveAttention(4, 3)(X, padding=torch.zeros(2, 3)), "padding must be boolean"),
        (
            lambda: AdditiveAttention(4, 3)(X, padding=torch.zeros(3, 2, dtype=torch.bool)),
            r"padding must have the shape of scores \(2, 3\), got \(3, 2\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
