"""Plan-then-fill texts say what their lines say they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windeye.data.sequences import IGNORED
from windeye.data.tasks import PlanThenFill
from windeye.data.tasks.plan_then_fill import MODULUS, Role


@st.composite
def tasks(draw: st.DrawFn) -> PlanThenFill:
    keys = draw(st.integers(1, 8))
    return PlanThenFill(
        keys,
        definitions=draw(st.integers(1, keys)),
        chunks=draw(st.integers(1, 5)),
        operations=draw(st.integers(1, 5)),
        numbers=draw(st.integers(2, 6)),
    )


def lines(task: PlanThenFill, tokens: list[int]) -> list[list[int]]:
    """A text cut into its lines, by its openers alone."""
    found = []
    while tokens:
        size = 3 if tokens[0] == task.define else 2 + task.numbers
        found.append(tokens[:size])
        tokens = tokens[size:]
    return found


@given(tasks(), st.integers(0, 5), st.booleans())
def test_every_chunk_starts_from_the_value_of_its_key_and_rises_by_its_operation(task, seed, definitions_first):
    made = task.marked(3, seed=seed, definitions_first=definitions_first)
    assert made.tokens.shape == made.roles.shape == (3, task.length)
    for tokens, roles in zip(made.tokens.tolist(), made.roles.tolist(), strict=True):
        values: dict[int, int] = {}
        kinds = []
        expected_roles: list[int] = []
        for line in lines(task, tokens):
            kinds.append(line[0] == task.define)
            if line[0] == task.define:
                assert line[1] not in values
                values[line[1]] = line[2]
                expected_roles += [Role.DEFINE, Role.NAME, Role.VALUE]
                continue
            step = line[0] - MODULUS - task.keys + 1
            assert 1 <= step <= task.operations
            assert line[2:] == [(values[line[1]] + i * step) % MODULUS for i in range(task.numbers)]
            expected_roles += [Role.OPERATION, Role.REFERENCE] + [Role.NUMBER] * task.numbers
        assert sum(kinds) == task.definitions
        assert len(kinds) == task.definitions + task.chunks
        assert kinds[0]
        assert roles == expected_roles
        if definitions_first:
            assert kinds == sorted(kinds, reverse=True)


@given(tasks(), st.integers(0, 3))
def test_targets_of_texts_are_the_next_tokens(task, seed):
    made = task.sample(2, seed=seed)
    assert made.tokens.shape == (2, task.length)
    assert torch.equal(made.targets[:, :-1], made.tokens[:, 1:])
    assert bool((made.targets[:, -1] == IGNORED).all())
    assert 0 <= int(made.tokens.min()) <= int(made.tokens.max()) < task.vocabulary


@given(tasks(), st.integers(2, 4), st.integers(0, 3))
def test_lists_ask_for_values_that_they_have_told(task, rounds, seed):
    made = task.pairs(3, rounds=rounds, seed=seed)
    for tokens, targets in zip(made.tokens.tolist(), made.targets.tolist(), strict=True):
        pairs = list(zip(tokens[::2], tokens[1::2], strict=True))
        told = dict(pairs[: task.definitions])
        assert len(told) == task.definitions
        assert all(MODULUS <= key < MODULUS + task.keys and 0 <= value < MODULUS for key, value in pairs)
        for turn in range(rounds):
            assert dict(pairs[turn * task.definitions :][: task.definitions]) == told
        asked = [IGNORED] * (2 * task.definitions)
        for key, _ in pairs[task.definitions :]:
            asked += [told[key], IGNORED]
        assert targets == asked


def test_a_seed_is_a_stream_and_train_and_test_are_distinct():
    task = PlanThenFill()
    assert torch.equal(task.sample(2, seed=1).tokens, task.sample(2, seed=1).tokens)
    assert not torch.equal(task.sample(2, seed=1).tokens, task.sample(2, seed=2).tokens)
    assert not torch.equal(task.sample(2, seed=1).tokens, task.sample(2, seed=1, split="test").tokens)


def test_whole_chunks_are_judged_right_and_any_change_makes_them_wrong():
    task = PlanThenFill()
    made = task.marked(20, seed=0, definitions_first=True)
    key, value = (made.tokens[made.roles == role].view(20, -1) for role in (Role.NAME, Role.VALUE))
    chunks = made.tokens[:, 3 * task.definitions :].view(20, task.chunks, -1)
    for place in range(task.chunks):
        assert bool(task.right(chunks[:, place], key, value).all())
    for token in range(2, chunks.shape[2]):
        wrong = chunks[:, 0].clone()
        wrong[:, token] = (wrong[:, token] + 1) % MODULUS
        assert not bool(task.right(wrong, key, value).any())
    for token, other in ((0, task.define), (0, 0), (1, 5)):
        wrong = chunks[:, 0].clone()
        wrong[:, token] = other
        assert not bool(task.right(wrong, key, value).any())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"keys": 3}, ValueError, "definitions must be at most keys 3, got 6"),
        ({"numbers": 1}, ValueError, "numbers must be at least 2, got 1"),
        ({"operations": 23}, ValueError, "operations must be below 23, got 23"),
        ({"chunks": 1.5}, TypeError, r"chunks must be an integer, got 1\.5"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        PlanThenFill(**arguments)
