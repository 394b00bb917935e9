"""The inspect suite: its own numbers are right, ways agree on a real model, what does not run says why."""

import sys

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from hf.real import real
from inspection.small import save
from windeye.bench import inspect as suite
from windeye.bench import inspected

N = 23


def test_statistics_of_a_map_are_those_of_loops():
    weights = torch.randn(2, N, N).masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    found = inspected.of_map(weights)
    for head, rows in enumerate(weights.tolist()):
        expected = {
            "mean_distance": sum(w * (t - s) for t, row in enumerate(rows) for s, w in enumerate(row)) / N,
            "waad": sum(w * min(t - s, 10) for t, row in enumerate(rows) for s, w in enumerate(row)) / N,
            "fai": sum(
                sum(rows[t][s] for t in range(s + 10, N)) / (N - s - 10) if s + 10 < N else 0.0 for s in range(N)
            ) / N,
            "sink": sum(row[0] for row in rows) / N,
            "previous": sum(rows[t][t - 1] for t in range(1, N)) / N,
            "self": sum(rows[t][t] for t in range(N)) / N,
            "max_weight": sum(map(max, rows)) / N,
            "received": sum(sum(rows[t][s] for t in range(s, N)) / (N - s) for s in range(N)) / N,
        }  # fmt: skip
        for name, value in expected.items():
            assert found[inspected.STATS.index(name), head] == pytest.approx(value, rel=1e-4), name
    entropy = torch.distributions.Categorical(weights).entropy().mean(-1)
    torch.testing.assert_close(found[0], entropy)


def test_ways_agree(tmp_path):
    folder, ids = str(save(tmp_path)), torch.randint(3, 60, (1, 40))
    with torch.no_grad():
        assert inspected.plain(folder, 40)(ids) is None
        assert inspected.steered(folder, 40)(ids) is None
        ours, kept, passing = (getattr(inspected, way)(folder, 40)(ids) for way in ("windeye", "maps", "one_map"))
    assert ours.shape == (len(inspected.STATS), 3, 4)
    torch.testing.assert_close(kept, passing)
    torch.testing.assert_close(ours, kept, rtol=1e-4, atol=1e-5)


def test_a_process_tells_its_time_memory_and_numbers():
    real("smollm2-135m-instruct")
    told = suite._once(sys.executable, "windeye", 8)
    assert told["seconds"] > 0
    assert told["peak"] >= 0
    summary = suite._summary([told], {"plain": [told | {"statistics": None}], "windeye": [told]})
    assert (summary["over_plain"], summary["difference"]) == (1, 0)


def test_a_way_that_fails_is_an_error_of_ours_and_a_row_of_others(monkeypatch):
    monkeypatch.setattr(suite, "_folder", lambda: "/nowhere")
    with pytest.raises(RuntimeError, match="windeye failed: "):
        suite._once("false", "windeye", 8)
    assert "did not run: " in suite._once("false", "nnsight_trace", 8)


def test_the_table_has_a_line_for_every_way():
    told = {"processor": 2.0, "over_plain": 1.25, "peak": 3 * 2**20, "whole": 9 * 2**20, "difference": 2e-6}
    ways = {"plain": told | {"difference": None}, "windeye": told, "maps": {"why not": "its maps take 18 GiB"}}
    rows = suite.rows({"parts": {"8 tokens": {"tokens": 8, "ways": ways}}})
    assert rows[0] == ("8 tokens, the model's own pass (SDPA)", "2.00", "1.25x", "3", "9", "")
    assert rows[1][-1] == "2e-06"
    assert rows[2][:2] == ("8 tokens, eager, output_attentions=True", "its maps take 18 GiB")
    assert all(len(row) == len(suite.COLUMNS) for row in rows)


def test_parts_are_the_sizes():
    assert [name for name, _ in suite.parts()] == [f"{n} tokens" for n in suite.SIZES]
    assert [name for name, _ in suite.parts(quick=True)] == ["64 tokens"]
