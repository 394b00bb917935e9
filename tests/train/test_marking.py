"""Marking by score: exactly the turns above the threshold, by the attention of the seed model."""

import pytest
import torch

from windeye.data.text import RoleTags, label_tokens, render, train_bpe
from windeye.models import transformer
from windeye.sites import context_scores
from windeye.train.marking import mark_dependent

TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "the cat and the hat"},
    {"role": "assistant", "content": "and the bat"},
    {"role": "user", "content": "the rat"},
    {"role": "assistant", "content": "the cat and the bat and the hat"},
    {"role": "user", "content": "the end"},
]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe("the cat and the hat and the bat " * 20, 300)


@pytest.fixture
def model():
    return transformer(layers=3, dim=32, heads=4, vocab_size=300).eval()


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_scores_are_those_of_the_answers_and_marks_follow_them(model, bpe, reduce):
    tokens = label_tokens(render(TALK, RoleTags()), bpe)
    expected = context_scores(
        model, tokens.ids[None], tokens.of("user")[None], tokens.responses()[None], layer=1, reduce=reduce
    )[0].tolist()
    between = sum(expected) / 2
    for beta in (0.0, between, 1.0):
        marked, scores = mark_dependent(TALK, model, bpe, RoleTags(), layer=1, beta=beta, reduce=reduce)
        assert scores == {0: pytest.approx(expected[0]), 1: pytest.approx(expected[1])}
        wanted = {turn for turn, score in enumerate(expected) if score > beta}
        users = [m["content"] for m in marked if m["role"] == "user"]
        assert {turn for turn, text in enumerate(users) if text.endswith("[IND]")} == wanted
        assert [m for m in marked if m["role"] != "user"] == [m for m in TALK if m["role"] != "user"]
    assert 0 < sum(score > between for score in expected) < 2


def test_what_is_cut_off_does_not_count(model, bpe):
    tokens = label_tokens(render(TALK, RoleTags()), bpe)
    second = int(tokens.responses()[1].int().argmax())
    whole = mark_dependent(TALK, model, bpe, RoleTags(), layer=1).scores
    assert mark_dependent(TALK, model, bpe, RoleTags(), layer=1, max_tokens=second).scores == {
        0: pytest.approx(whole[0])
    }
    short = mark_dependent(TALK, model, bpe, RoleTags(), layer=1, max_tokens=second + 1).scores
    assert set(short) == {0, 1}


def test_without_an_answer_nothing_is_marked(model, bpe):
    asked = [TALK[1]]
    assert mark_dependent(asked, model, bpe, RoleTags(), layer=1, beta=0.0) == (asked, {})


def test_the_model_is_left_as_it_was(model, bpe):
    ids = torch.arange(9)[None]
    before = model(ids)
    mark_dependent(TALK, model, bpe, RoleTags(), layer=0)
    assert torch.equal(model(ids), before)
