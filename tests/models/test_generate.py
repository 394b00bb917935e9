"""Generation equals what the model says of the whole text, for prompts of different lengths, drawn or not."""

import pytest
import torch
from scipy.stats import chisquare

from models.test_decoder import VOCAB, every_model, tokens, wide
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM, Sampling, generate, tnl


def greedy_by_hand(model, ids, new):
    """Each token from a pass over everything before it."""
    for _ in range(new):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), dim=1)
    return ids[:, -new:]


@every_model
def test_greedy_generation_is_a_pass_over_everything_for_each_token(make):
    model = wide(make)
    x, _ = tokens(6)
    assert torch.equal(generate(model, x, 8), greedy_by_hand(model, x, 8))


@every_model
@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_of_different_lengths_continue_as_if_alone(make, side):
    model = wide(make)
    x, junk = tokens(6)
    lengths = torch.tensor([6, 2, 4])
    here = torch.arange(6)
    padding = here >= lengths[:, None] if side == "right" else here < 6 - lengths[:, None]
    new = generate(model, torch.where(padding, junk, x), 8, padding=padding)
    for row in range(3):
        prompt = x[row : row + 1, ~padding[row]]
        assert torch.equal(new[row : row + 1], greedy_by_hand(model, prompt, 8))


@every_model
def test_it_goes_on_from_a_state(make):
    model = wide(make)
    x, _ = tokens(6)
    _, state = model(x[:, :4], return_state=True)
    assert torch.equal(generate(model, x[:, 4:], 5, state=state), generate(model, x, 5))


def test_seeds_repeat_draws_and_leave_the_global_generator_alone():
    model = wide(lambda: tnl(2, 16, 2, 24, vocab_size=VOCAB))
    x, _ = tokens(4)
    before = torch.get_rng_state()
    one = generate(model, x, 20, temperature=1.5, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generate(model, x, 20, temperature=1.5, seed=7), one)
    assert not torch.equal(generate(model, x, 20, temperature=1.5, seed=8), one)
    torch.manual_seed(3)
    two = generate(model, x, 20, temperature=1.5)
    torch.manual_seed(3)
    assert torch.equal(generate(model, x, 20, temperature=1.5), two)


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20000, 4)
    sampling = Sampling(temperature=0.7)
    counts = sampling.choose(logits, torch.Generator().manual_seed(0)).bincount(minlength=4)
    expected = (logits[0] / 0.7).softmax(-1).double()
    assert chisquare(counts.numpy(), (expected / expected.sum() * 20000).numpy()).pvalue > 0.001


def test_filters_keep_the_likeliest():
    probabilities = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    logits = probabilities.log()
    for sampling, expected in [
        (Sampling(1.0), [0.4, 0.1, 0.3, 0.2]),
        (Sampling(1.0, top_k=2), [4 / 7, 0, 3 / 7, 0]),
        (Sampling(1.0, top_k=9), [0.4, 0.1, 0.3, 0.2]),
        (Sampling(1.0, top_p=0.65), [4 / 7, 0, 3 / 7, 0]),
        (Sampling(1.0, top_p=0.75), [4 / 9, 0, 3 / 9, 2 / 9]),
        (Sampling(1.0, top_p=1e-6), [1, 0, 0, 0]),
        (Sampling(1.0, top_p=1.0), [0.4, 0.1, 0.3, 0.2]),
        (Sampling(1.0, top_k=3, top_p=0.5), [4 / 7, 0, 3 / 7, 0]),
    ]:
        torch.testing.assert_close(sampling.probabilities(logits), torch.tensor([expected]).float())
    assert Sampling(1.0, top_k=1).choose(logits).tolist() == [0]


def test_sequences_end_and_are_filled_up():
    model = wide(lambda: tnl(2, 16, 2, 24, vocab_size=VOCAB))
    x, _ = tokens(4)
    free = generate(model, x, 12)
    end = free[0, 2].item()
    stopped = generate(model, x, 12, end=end)
    for row, own in enumerate(free.tolist()):
        cut = own.index(end) + 1 if end in own else 12
        expected = (own[:cut] + [end] * 12)[: stopped.shape[1]]
        assert stopped[row].tolist() == expected
    alone = generate(model, x[:1], 12, end=end)
    assert alone[0].tolist() == free[0, : free[0].tolist().index(end) + 1].tolist()


def test_training_mode_and_graph_are_left_as_they_were():
    model = DecoderLM(DecoderConfig(VOCAB, 16, (AttentionSpec(),), embedding_dropout=0.5))
    x, _ = tokens(4)
    assert model.training
    assert torch.equal(generate(model, x, 9), generate(model, x, 9))
    assert model.training
    assert generate(model, x, 0).shape == (3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
        ({"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"padding": torch.tensor([[True] * 4, [False] * 4, [False] * 4])}, r"every prompt needs a token.*\[0, 4, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    model = wide(lambda: tnl(1, 16, 2, 24, vocab_size=VOCAB))
    with pytest.raises(ValueError, match=message):
        generate(model, tokens(4)[0], **({"max_new_tokens": 2} | options))
