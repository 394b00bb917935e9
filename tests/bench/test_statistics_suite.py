"""The statistics suite: all ways give the same numbers, and parts become a row."""

import torch

from windeye.bench import statistics
from windeye.bench.timing import can_measure_memory


def test_the_ways_compute_the_same_numbers():
    inputs = statistics.Inputs(130)
    streamed = inputs.statistics(statistics.ROWS | statistics.BAND)
    slabs = inputs.statistics(statistics.ROWS | statistics.BAND, "slab")
    for name, value in inputs.eager().items():
        torch.testing.assert_close(streamed[name], value, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(slabs[name], value, rtol=1e-4, atol=1e-4)


def test_dense_attention_is_causal_and_shares_keys():
    inputs = statistics.Inputs(20)
    weights = (inputs.query[0, :, 4] @ inputs.key[0, :, 1].T * 64**-0.5).tril()
    weights = weights.masked_fill(torch.ones_like(weights).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(inputs.dense()[0, 4], weights @ inputs.value[0, :, 1], rtol=1e-4, atol=1e-5)


def test_parts_are_measured_and_become_a_row():
    parts = {name: work() for name, work in statistics.parts(quick=True)}
    table = statistics.rows({"parts": parts})
    assert [len(row) for row in table] == [len(statistics.COLUMNS)]
    assert table[0][0] == "256 tokens"
    assert all(cell.endswith("x") for cell in table[0][3:8])
    assert table[0][8].endswith("%") or not can_measure_memory()


def test_memory_does_not_grow_like_the_map():
    if can_measure_memory():
        measured = statistics._memory(4096)
        assert measured["bytes"] < statistics.MOST_MEMORY * measured["map_bytes"]
