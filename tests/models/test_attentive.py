"""Classifiers that read through one attention: ragged batches, pairs of texts, gradients cut at the attention."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from windeye.models import AttentiveClassifier, AttentiveConfig

SMALL = {"vocabulary": 20, "dim": 5, "hidden": 3}


def model_of(**changed):
    torch.manual_seed(0)
    return AttentiveClassifier(AttentiveConfig(**SMALL | changed)).double()


@pytest.mark.parametrize("encoder", ["bilstm", "words"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_ragged_batch_is_its_texts_one_at_a_time(encoder, paired):
    model = model_of(encoder=encoder, paired=paired, answers=4)
    tokens, lengths = torch.randint(1, 20, (3, 7)), torch.tensor([7, 1, 4])
    query, query_lengths = torch.randint(1, 20, (3, 5)), torch.tensor([2, 5, 1])
    asked = (query, query_lengths) if paired else ()
    together = model(tokens, lengths, *asked)
    assert together.shape == (3, 4)
    for row in range(3):
        alone = (query[row : row + 1, : query_lengths[row]], query_lengths[row : row + 1]) if paired else ()
        expected = model(tokens[row : row + 1, : lengths[row]], lengths[row : row + 1], *alone)
        torch.testing.assert_close(together[row : row + 1], expected)


def test_what_stands_at_padding_does_not_count():
    model = model_of(paired=True)
    tokens, lengths = torch.randint(1, 20, (2, 6)), torch.tensor([4, 6])
    query, query_lengths = torch.randint(1, 20, (2, 3)), torch.tensor([3, 1])
    before = model(tokens, lengths, query, query_lengths)
    tokens[0, 4:], query[1, 1:] = 7, 9
    torch.testing.assert_close(model(tokens, lengths, query, query_lengths), before)


def test_the_query_is_both_ends_of_the_second_text():
    model = model_of(paired=True)
    words = model.embed(torch.randint(1, 20, (1, 4)))
    query = model.embed(torch.randint(1, 20, (1, 3)))
    full = torch.tensor([4]), torch.tensor([3])
    states = [lstm(q)[1][0][0] for lstm, q in zip(model.query_encoder.children(), (query, query.flip(1)), strict=True)]
    reading = model.read(words, full[0], query, full[1])
    torch.testing.assert_close(reading.scores, model.attention.scores(reading.states, torch.cat(states, dim=-1)))


def test_both_directions_are_those_of_one_packed_bidirectional_lstm():
    model = model_of()
    whole = torch.nn.LSTM(5, 3, batch_first=True, bidirectional=True).double()
    own = dict(model.encoder.onward.named_parameters())
    own |= {f"{name}_reverse": weight for name, weight in model.encoder.back.named_parameters()}
    whole.load_state_dict(own)
    words, lengths = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([2, 6, 1])
    packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(whole(packed)[0], batch_first=True)
    real = torch.arange(6) < lengths[:, None]
    found = model.encoder(words, lengths)
    torch.testing.assert_close(found[real], expected[real])
    weight = torch.randn_like(found) * real[..., None]
    torch.testing.assert_close(
        *(torch.autograd.grad((states * weight).sum(), words, retain_graph=True)[0] for states in (found, expected))
    )


def test_words_know_nothing_of_each_other():
    model = model_of(encoder="words")
    tokens, lengths = torch.randint(1, 20, (1, 6)), torch.tensor([6])
    states = model.read(model.embed(tokens), lengths).states
    changed = tokens.clone()
    changed[0, 2] = 1 + tokens[0, 2] % 19
    others = torch.arange(6) != 2
    again = model.read(model.embed(changed), lengths).states
    assert torch.equal(again[0, others], states[0, others])
    assert not torch.equal(again[0, 2], states[0, 2])


def test_without_attention_gradients_flow_through_values_alone():
    model = model_of()
    reading = model.read(model.embed(torch.randint(1, 20, (2, 6))), torch.tensor([6, 4]))
    cut = model.answer(reading, through_attention=False)
    assert torch.equal(cut, model.answer(reading))
    scores, states = torch.autograd.grad(
        cut.sum(), [reading.scores, reading.states], allow_unused=True, retain_graph=True
    )
    assert scores is None
    weights = reading.scores.masked_fill(reading.padding, -torch.inf).softmax(-1)
    torch.testing.assert_close(states, weights[..., None] * model.answers.weight[0])


T, L = torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_of(encoder="gru"), 'encoder must be "bilstm" or "words", got \'gru\''),
        (lambda: model_of(hidden=0), "hidden must be at least 1"),
        (lambda: model_of()(T, torch.tensor([3, 0])), r"lengths must be in 1 \.\. 3, got 0 to 3"),
        (lambda: model_of()(T, torch.tensor([4, 1])), r"lengths must be in 1 \.\. 3, got 1 to 4"),
        (lambda: model_of()(T, torch.tensor([3])), r"lengths must be \[batch 2\]"),
        (lambda: model_of()(T, L, T, L), "query is given, but paired=False"),
        (lambda: model_of(paired=True)(T, L), "query is missing, but paired=True"),
        (lambda: model_of(paired=True)(T, L, T), "query_lengths is missing"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
