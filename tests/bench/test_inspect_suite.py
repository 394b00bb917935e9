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
    assert told["whole"] > told["peak"]
    assert len(told["statistics"]) == len(inspected.STATS)


def test_a_way_that_fails_is_an_error_of_ours_and_a_row_of_others(monkeypatch):
    monkeypatch.setattr(suite, "_folder", lambda: "/nowhere")
    with pytest.raises(RuntimeError, match="windeye failed: "):
        suite._once("false", "windeye", 8)
    assert "did not run: " in suite._once("false", "nnsight_trace", 8)


def test_the_table_has_a_line_for_every_way():
    told = {"tokens": 8, "processor": 2.5, "peak": 3 * 2**20, "whole": 9 * 2**20}
    parts = {
        "8 tokens, a": told | {"way": "plain", "processor": 2.0, "difference": None},
        "8 tokens, b": told | {"way": "windeye", "difference": 0.0},
        "8 tokens, c": told | {"way": "one_map", "difference": 5e-4},
        "8 tokens, d": {"tokens": 8, "way": "maps", "why not": "would need 18 GiB"},
    }
    assert suite.rows({"parts": parts}) == [
        ("8 tokens, a", "2.00", "1.00x", "3", "9", ""),
        ("8 tokens, b", "2.50", "1.25x", "3", "9", ""),
        ("8 tokens, c", "2.50", "1.25x", "3", "9", "5e-04"),
        ("8 tokens, d", "would need 18 GiB", "", "", "", ""),
    ]


def test_numbers_of_others_are_compared_with_ours(monkeypatch):
    told = {"seconds": 1.0, "processor": 2.0, "peak": 3, "whole": 4}
    statistics = {"windeye": [[2.0, 4.0], [0.0, 0.0]], "maps": [[2.0, 4.002], [0.0, 0.0]], "plain": None}
    monkeypatch.setattr(suite, "_once", lambda _, way, __: told | {"statistics": statistics[way]})
    suite._ours.cache_clear()
    found = {way: suite._measure("python", way, 8, 2) for way in statistics}
    suite._ours.cache_clear()
    assert {way: part["difference"] for way, part in found.items()} == {
        "windeye": 0.0, "maps": pytest.approx(5e-4), "plain": None,
    }  # fmt: skip
    assert found["maps"] | told == found["maps"]


def test_maps_that_do_not_fit_are_not_tried(monkeypatch):
    monkeypatch.setattr(suite, "_available", lambda: 2**30)
    monkeypatch.setattr(suite, "_once", lambda *_: pytest.fail("was tried"))
    assert suite._measure("python", "maps", 4096, 1)["why not"].startswith("would need 20 GiB for maps, 1 may be taken")
    assert "why not" in suite._measure("python", "nnsight_trace", 4096, 1)


def test_parts_are_all_ways_at_all_sizes_and_others_where_their_python_is_named(monkeypatch):
    monkeypatch.delenv(suite.PEERS_PYTHON, raising=False)
    assert len(list(suite.parts())) == len(suite.SIZES) * len(suite.OWN)
    monkeypatch.setenv(suite.PEERS_PYTHON, "python")
    names = [name for name, _ in suite.parts(quick=True)]
    assert len(names) == len(suite.OWN) + len(suite.PEERS)
    assert not [name for name, _ in suite.parts() if "nnsight" in name and name.startswith(("4096", "8192"))]
    assert names[0] == "64 tokens, the model's own pass (SDPA)"
