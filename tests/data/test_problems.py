"""Mathematical problems are read in both layouts, and answers are found where they stand."""

from __future__ import annotations

import json

import pytest

from windeye.data.text.problems import MathProblem, read_problems


def written(tmp_path, *entries):
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + "\n\n")
    return path


def test_both_layouts_are_read(tmp_path):
    path = written(
        tmp_path,
        {"question": "How many?", "answer": "5 #### is written.\n#### 1,234"},
        {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Area?"}],
         "reward_model": {"ground_truth": "\\frac{1}{2}", "style": "rule"}},
        {"prompt": "Sum?", "reward_model": {"ground_truth": 34}},
    )  # fmt: skip
    assert read_problems(path) == [
        MathProblem("How many?", "1,234", "5 #### is written."),
        MathProblem("Area?", "\\frac{1}{2}"),
        MathProblem("Sum?", "34"),
    ]


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("1,234", "so \\boxed{1234}", True),
        ("1,234", "first \\boxed{7}, then \\boxed{1\\,234.}", True),
        ("34", "#### $34", True),
        ("34", "#### 34\nThat is all 35 of them.", True),
        ("34", "\\boxed{34.50}", False),
        ("34", "34", False),
        ("34", "\\boxed{34", False),
        ("\\frac{1}{2}", "\\boxed{\\frac{1}{2}}", True),
        ("\\frac{1}{2}", "\\boxed{\\frac{1}{3}}", False),
        ("-3", "#### -3.0", True),
    ],
)
def test_answers_are_found_and_compared(answer, response, right):
    assert MathProblem("", answer).right(response) is right


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question": "?", "answer": "4"}, r"line 2 of .* \(answer has no ####\)"),
        ({"prompt": "?"}, r"line 2 of .* \('reward_model'\)"),
        ({"text": "?"}, r"line 2 of .* \('prompt'\)"),
        ({"prompt": [], "reward_model": {"ground_truth": "1"}}, r"line 2 of .* \(list index out of range\)"),
        ("[1", r"line 2 of .*: it needs question and answer"),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path, entry, message):
    path = written(tmp_path, {"question": "?", "answer": "#### 4"}, entry)
    with pytest.raises(ValueError, match=message):
        read_problems(path)
