"""Countdown problems can be solved, and nothing but a solution is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windeye.data.tasks.countdown import Countdown, Problem


@given(st.integers(2, 6), st.integers(1, 99), st.integers(0, 20))
def test_every_target_is_reached_by_its_solution(numbers, largest, seed):
    task = Countdown(numbers, largest)
    for problem in task.sample(5, seed=seed):
        assert len(problem.numbers) == numbers
        assert all(1 <= number <= largest for number in problem.numbers)
        assert 1 <= problem.target <= task.largest_target
        assert problem.right(problem.solution)
        assert not Problem(problem.numbers, problem.target + 1, "").right(problem.solution)
        assert not problem.right(f"{problem.solution} + 0")


def test_a_seed_is_a_stream_and_train_and_test_are_distinct():
    task = Countdown()
    assert task.sample(3, seed=1) == task.sample(3, seed=1)
    assert task.sample(3, seed=1) != task.sample(3, seed=2)
    assert task.sample(3, seed=1) != task.sample(3, seed=1, split="test")


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("(25 - 5) * 4 / 2", True),
        (" 4 * (25 - 5) / 2 ", True),
        ("25 * 2 - 5 * (4 / 2)", False),  # 2 twice
        ("25 - 5 + 4 * 5", False),  # 2 left out
        ("40", False),
        ("4 * (25 - 5) // 2", False),
        ("4 ** 2 + 25 - 5 + 2", False),
        ("25.0 * 4 - 5 - 2", False),
        ("-5 + 25 * 2 - 4", False),
        ("(25 - 5) * 4 / 2; 1", False),
        ("__import__('os').getpid()", False),
        ("5 / (25 - 25) + 2 * 4", False),
        ("(" * 500 + "1" + ")" * 500, False),
        ("", False),
    ],
)
def test_only_a_solution_is_right(expression, right):
    assert Problem((25, 5, 4, 2), 40, "").right(expression) is right


def test_thirds_are_exact():
    assert Problem((3, 3, 1), 3, "").right("1 / 3 * 3 * 3") is False
    assert Problem((8, 3, 8, 3), 24, "").right("8 / (3 - 8 / 3)")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"numbers": 1}, ValueError, "numbers must be at least 2, got 1"),
        ({"largest": 0}, ValueError, "largest must be at least 1, got 0"),
        ({"numbers": 4, "largest_target": 3}, ValueError, "largest_target must be at least 4, got 3"),
        ({"numbers": 2.0}, TypeError, r"numbers must be an integer, got 2\.0"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        Countdown(**arguments)
