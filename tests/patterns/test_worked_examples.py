"""The worked examples of the gna and fna specs, literally."""

import re

import pytest

from oracles.windows import neighborhood
from windeye.patterns import Neighborhood

GNA = """
L=8 W=5 s=1   q0,q1,q2 [0-4]; q3 [1-5]; q4 [2-6]; q5,q6,q7 [3-7]
L=8 W=5 s=2   q0,q1 [0-4]; q2,q3 [1-5]; q4,q5,q6,q7 [3-7]
L=8 W=5 s=3   q0,q1,q2 [0-4]; q3,q4,q5 [2-6]; q6,q7 [3-7]
L=8 W=5 s=5   q0..q4 [0-4]; q5,q6,q7 [3-7]
L=8 W=4 s=1   q0,q1,q2 [0-3]; q3 [1-4]; q4 [2-5]; q5 [3-6]; q6,q7 [4-7]
L=8 W=4 s=2   q0,q1 [0-3]; q2,q3 [1-4]; q4,q5 [3-6]; q6,q7 [4-7]
L=8 W=4 s=4   q0..q3 [0-3]; q4..q7 [4-7]
L=10 W=4 s=4  q0..q3 [0-3]; q4..q7 [4-7]; q8,q9 [6-9]
L=9 W=3 s=2 d=2   q0,q2 {0,2,4}; q1,q3 {1,3,5}; q4,q6,q8 {4,6,8}; q5,q7 {3,5,7}
L=8 W=4 s=2 causal  q0 [0]; q1 [0,1]; q2 [0-2]; q3 [0-3]; q4 [2-4]; q5 [2-5]; q6 [4-6]; q7 [4-7]
L=8 W=4 s=4 causal  q0 [0] q1 [0,1] q2 [0-2] q3 [0-3]; q4 [4] q5 [4,5] q6 [4-6] q7 [4-7]
"""

FNA = """
L=8 W=5          q0,q1,q2 [0-4]  q3 [1-5]  q4 [2-6]  q5,q6,q7 [3-7]
L=8 W=4          q0,q1,q2 [0-3]  q3 [1-4]  q4 [2-5]  q5 [3-6]  q6,q7 [4-7]
L=8 W=3 d=2      q0 {0,2,4} q1 {1,3,5} q2 {0,2,4} q3 {1,3,5} q4 {2,4,6} q5 {3,5,7} q6 {2,4,6} q7 {3,5,7}
L=9 W=3 d=2      q0 {0,2,4} q1 {1,3,5} q2 {0,2,4} q3 {1,3,5} q4 {2,4,6} q5 {3,5,7} q6 {4,6,8} q7 {3,5,7} q8 {4,6,8}
L=8 W=4 causal   q0 [0] q1 [0,1] q2 [0-2] q3 [0-3] q4 [1-4] q5 [2-5] q6 [3-6] q7 [4-7]
L=9 W=3 d=2 causal  q0 {0} q1 {1} q2 {0,2} q3 {1,3} q4 {0,2,4} q5 {1,3,5} q6 {2,4,6} q7 {3,5,7} q8 {4,6,8}
"""


def read(line):
    """``(length, window, stride, dilation, causal, {query: keys})`` of a line of a table."""
    facts, queries = line[: line.index("q0")], line[line.index("q0") :]
    number = {name: int(value) for name, value in re.findall(r"([LWsd])=(\d+)", facts)}
    keys = {}
    for who, seen in re.findall(r"(q[\dq,.]+)\s+[\[{]([\d,-]+)[\]}]", queries):
        if ".." in who:
            first, last = map(int, re.findall(r"\d+", who))
            members = range(first, last + 1)
        else:
            members = map(int, re.findall(r"\d+", who))
        ends = [int(n) for n in re.findall(r"\d+", seen)]
        for query in members:
            keys[query] = list(range(ends[0], ends[1] + 1)) if "-" in seen else ends
    return number["L"], number["W"], number.get("s", 1), number.get("d", 1), "causal" in facts, keys


LINES = [pytest.param(line, id=line.split("  ")[0]) for line in (GNA + FNA).strip().splitlines() if line]


def test_the_tables_are_read_whole():
    assert len(LINES) == 17
    for line in (GNA + FNA).split("\n"):
        if line:
            length, *_, keys = read(line)
            assert sorted(keys) == list(range(length)), line


@pytest.mark.parametrize("line", LINES)
def test_worked_example(line):
    length, window, stride, dilation, causal, expected = read(line)
    bound = Neighborhood(window, stride, dilation, causal).bind((length,))
    assert {query: bound.keys_of(query) for query in range(length)} == expected


@pytest.mark.parametrize("line", LINES)
def test_the_oracle_agrees_with_the_worked_example(line):
    length, window, stride, dilation, causal, expected = read(line)
    rows = {q: sorted(neighborhood(q, length, window, stride, dilation, causal)) for q in range(length)}
    assert rows == expected


def test_the_relation_is_not_symmetric():
    mask = Neighborhood(5).bind((8,)).mask()
    assert mask[0, 4]
    assert mask[4, 2]
    assert not mask[4, 0]
