"""Lists of pairs that come again: every later value can be looked up, and nothing else can."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windeye.data.sequences import IGNORED
from windeye.data.tasks.pair_lists import PairLists


@st.composite
def tasks(draw: st.DrawFn) -> PairLists:
    keys = draw(st.integers(2, 7))
    return PairLists(keys, draw(st.integers(keys, 30)), draw(st.integers(2, 4)))


@given(tasks(), st.integers(0, 2**40))
def test_every_list_holds_the_same_pairs_and_later_values_are_targets(task, seed):
    tokens, targets = task.sample(3, seed=seed)
    assert tokens.shape == (3, task.length)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        pairs = list(zip(row[::2], row[1::2], strict=True))
        lists = [dict(pairs[i : i + task.keys]) for i in range(0, len(pairs), task.keys)]
        assert all(found == lists[0] for found in lists)
        assert set(lists[0]) == set(range(task.keys))
        assert len(set(lists[0].values())) == task.keys
        assert min(lists[0].values()) >= task.keys
        assert max(lists[0].values()) < task.vocabulary
        expected = [IGNORED] * task.length
        expected[2 * task.keys :: 2] = row[2 * task.keys + 1 :: 2]
        assert asked == expected


@given(tasks(), st.integers(0, 2**40))
def test_swapping_two_keys_swaps_the_answers(task, seed):
    batch = task.contrasts(4, seed=seed)
    for clean, corrupt, (right, wrong) in zip(
        batch.clean.tolist(), batch.corrupt.tolist(), batch.answers.tolist(), strict=True
    ):
        for row, answer in ((clean, right), (corrupt, wrong)):
            assert dict(zip(row[:-1:2], row[1::2], strict=True))[row[-1]] == answer
        assert right != wrong
        assert clean[1::2] == corrupt[1::2]
        assert clean[-1] == corrupt[-1]


def test_each_place_of_the_list_is_asked_for_as_often():
    batch = PairLists().contrasts(3000, seed=1)
    place = (batch.clean[:, :-1:2] == batch.clean[:, -1:]).int().argmax(dim=1)
    counts = Counter(place.tolist())
    assert set(counts) == set(range(6))
    assert min(counts.values()) > 400


def test_equal_seeds_give_equal_examples_and_splits_are_distinct():
    task = PairLists()
    assert torch.equal(task.sample(9, seed=3).tokens, task.sample(9, seed=3).tokens)
    assert not torch.equal(task.sample(9, seed=3).tokens, task.sample(9, seed=3, split="test").tokens)


def test_errors_say_what_would_be_valid():
    with pytest.raises(ValueError, match="values must be at least 6, got 5"):
        PairLists(values=5)
    with pytest.raises(ValueError, match="lists must be at least 2, got 1"):
        PairLists(lists=1)
