"""Floors of the GPU suite: counted by hand where that is easy."""

import pytest

from windeye.bench import floors, gpu


def test_every_case_has_a_row_and_every_goal_a_case():
    measured = {name: count() for name, count in floors.parts()}
    table = floors.rows({"parts": measured})
    assert [row[0] for row in table] == [case.name for case in floors.CASES]
    assert {len(row) for row in table} == {len(floors.COLUMNS)}
    assert gpu.GOALS.keys() <= measured.keys()


def test_work_and_bytes_of_a_causal_window():
    case = next(case for case in floors.CASES if case.name == "32768, causal window 2048")
    found = floors.floor(case)
    pairs = sum(min(query + 1, 2048) for query in range(32768))
    assert found["flops"] == 4 * pairs * 128
    assert found["bytes"] == 4 * 32768 * 128 * 2
    # A box of 128 queries meets 34 boxes of 64 keys in the middle of the sequence.
    assert found["visited"] == pytest.approx(34 * 64 / 2048, rel=0.01)


def test_no_aim_asks_for_more_than_the_device_has():
    measured = {name: count() for name, count in floors.parts()}
    for row in floors.rows({"parts": measured}):
        assert not row[-1] or 0 < int(row[-1].rstrip("%")) < 75
