"""Nodes as tokens: the mean of the words of their text, forward and gradient, in a decoder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.nn import NodeTokens

TEXTS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=5)


@given(TEXTS, st.integers(0, 99))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_embeddings_and_gradients_are_those_of_the_mean(texts, seed):
    tokens = NodeTokens(7, 3, texts).double()
    ids = torch.randint(7 + len(texts), (2, 6), generator=torch.Generator().manual_seed(seed))
    out = tokens(ids)
    rows = [
        tokens.weight[i] if i < 7 else tokens.weight[texts[i - 7]].mean(0) for i in ids.flatten().tolist()
    ]  # fmt: skip
    expected = torch.stack(rows).reshape(2, 6, 3)
    torch.testing.assert_close(out, expected)
    pull = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((t * pull).sum(), tokens.weight)[0] for t in (out, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_decoder_reads_nodes_and_its_head_does_not_grow():
    model = DecoderLM(DecoderConfig(10, 8, (AttentionSpec(2),)))
    names = list(model.state_dict())
    plain = model(torch.tensor([[1, 2, 3]]))
    tokens = NodeTokens(10, 8, [[2], [4, 5]])
    tokens.load_state_dict(model.embedding.state_dict())
    model.embedding = tokens
    assert list(model.state_dict()) == names
    logits = model(torch.tensor([[1, 10, 3]]))
    assert logits.shape == (1, 3, 10)
    torch.testing.assert_close(logits, plain)  # the node's only word is word 2


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([[1], []], "node 1 has no text"),
        ([[0]], r"node 0 must be in 1 .. 9, got \[0\]"),
        ([[3], [10]], "node 1 must be"),
    ],
)
def test_texts_that_do_not_fit_are_refused(texts, words):
    with pytest.raises(ValueError, match=words):
        NodeTokens(10, 4, texts)
