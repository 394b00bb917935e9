"""Measuring: taking turns, memory, resuming, tables. Speeds themselves are not tests."""

import time
from pathlib import Path

import pytest
import torch

import windeye
from cli.typed import windeye as typed
from windeye.bench import demo, pages, peers, run, softmax
from windeye.bench.timing import can_measure_memory, compare, peak_extra_bytes
from windeye.data import photograph
from windeye.kernels.native import instruction_sets

SMALL = (8, 8)


def test_candidates_take_turns_and_ratios_are_of_one_round():
    order = []

    def candidate(name, seconds):
        def go():
            order.append(name)
            time.sleep(seconds)

        return go

    result = compare({"slow": candidate("slow", 0.02), "fast": candidate("fast", 0.005)}, baseline="slow", rounds=3)
    assert order == ["slow", "fast"] * 4
    assert 2 < result["fast"].speedup < 6
    assert result["slow"].speedup == 1.0
    assert result["fast"].rounds == 3
    assert result["fast"].fastest <= result["fast"].seconds


def test_timing_stops_after_the_time_it_is_given():
    result = compare({"a": lambda: time.sleep(0.02)}, baseline="a", rounds=1000, most_seconds=0.05)
    assert 3 <= result["a"].rounds < 20


def test_seconds_of_the_processor_leave_out_what_others_take():
    result = compare({"a": lambda: time.sleep(0.05)}, baseline="a", rounds=3, clock=time.process_time)
    assert result["a"].seconds < 0.02


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="baseline must be one of a, got 'b'"):
        compare({"a": lambda: None}, baseline="b")


@pytest.mark.skipif(not can_measure_memory(), reason="this system does not reset a process's peak memory")
def test_peak_memory_counts_what_is_allocated_and_freed_but_not_what_is_returned():
    code = """
import numpy as np, torch
def run():
    scratch = np.ones(64 << 20, dtype=np.uint8)
    return torch.ones(32 << 20, dtype=torch.uint8)
"""
    assert 60 < peak_extra_bytes(code) / 2**20 < 76


@pytest.mark.skipif(not can_measure_memory(), reason="this system does not reset a process's peak memory")
def test_memory_of_the_kernel_does_not_grow_with_the_tokens():
    code = softmax._MEASURED.format(side=128, heads=1, head_dim=16, grad=False)
    if instruction_sets():
        # Dense weights would be 1 GiB. What the system itself adds now and then is not added twice.
        assert any(peak_extra_bytes(code) < 8 << 20 for _ in range(2))


def test_memory_of_a_failing_process_is_an_error():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        peak_extra_bytes("def run():\n    return 1 / 0\n")


@pytest.mark.parametrize("pattern", [windeye.Neighborhood(3), windeye.Full(), windeye.Blocks(4)])
def test_peers_compute_the_same(pattern):
    data = peers.inputs(SMALL, heads=2, head_dim=16)
    ours = windeye.attend(data.query, data.key, data.value, pattern).flatten(1, 2)
    masked = peers.masked(data, pattern)().transpose(1, 2)
    gathered = peers.gather(data, pattern)()
    assert torch.allclose(ours, masked, atol=1e-5)
    assert torch.allclose(ours, gathered, atol=1e-5)
    if isinstance(pattern, windeye.Full):
        assert torch.allclose(ours, peers.dense(data, pattern)().transpose(1, 2), atol=1e-5)


def test_compiled_flex_computes_the_same():
    data = peers.inputs(SMALL, heads=2, head_dim=16)
    pattern = windeye.Neighborhood(3)
    ours = windeye.attend(data.query, data.key, data.value, pattern).flatten(1, 2)
    assert torch.allclose(ours, peers.flex(data, pattern)().transpose(1, 2), atol=1e-5)


def test_dense_causal_is_causal():
    data = peers.inputs((12,), heads=2, head_dim=16)
    dense = peers.dense(data, windeye.Sliding(4))().transpose(1, 2)
    assert torch.allclose(dense, windeye.attend(data.query, data.key, data.value, windeye.Causal()), atol=1e-5)


def test_gathering_needs_equal_windows():
    with pytest.raises(ValueError, match="equally many keys per query, got 2 to 3"):
        peers.gather(peers.inputs((5,), heads=1, head_dim=4), windeye.Neighborhood(3, boundary="truncate"))


def test_training_step_fills_gradients():
    data = peers.inputs(SMALL, heads=2, head_dim=16, grad=True)
    peers.windeye(data, windeye.Neighborhood(3), grad=True)()
    peers.dense(data, windeye.Full(), grad=True)()
    assert all(t.grad is not None for t in (data.query, data.key, data.value, *data.heads_first))


def test_a_suite_goes_on_where_it_was_stopped(tmp_path):
    calls = []

    def part(name, fail=False):
        def go():
            calls.append(name)
            if fail:
                raise KeyboardInterrupt
            return {"seconds": 1.0}

        return name, go

    options = {"suite": "softmax", "command": "windeye bench softmax", "threads": 1, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        run.run([part("a"), part("b", fail=True)], **options)
    result = run.run([part("a"), part("b")], fresh=False, **options)
    assert calls == ["a", "b", "b"]
    assert result["parts"] == {"a": {"seconds": 1.0}, "b": {"seconds": 1.0}}
    assert {"processor", "threads"} <= result["machine"].keys()
    run.run([part("a"), part("b")], **options)
    assert calls == ["a", "b", "b", "a", "b"]


def fake_result(**flex):
    timing = {"seconds": 0.2}
    parts = {}
    for case in softmax.CASES:
        timings = {"dense": timing, "windeye": {"seconds": 0.0123}, **flex}
        parts[f"forward {case.name}"] = {
            "timings": timings, "over_dense": 16.3, "over_flex": 17.0 if flex else None, "flop_bound": 24.2,
        }  # fmt: skip
        parts[f"training {case.name}"] = {"over_dense": 1.25}
    return {
        "command": "windeye bench softmax", "machine": {"processor": "abacus", "threads": "2"},
        "versions": {"torch": "2.13"}, "parts": parts,
    }  # fmt: skip


def test_the_table_is_made_from_the_result_and_put_between_its_marks():
    results = {"softmax": fake_result(flex={"seconds": 0.21})}
    text = "before\n<!-- benchmark: softmax -->\nold\n<!-- end of benchmark -->\nafter"
    embedded = pages.readme(text, results)
    assert "| 64x64, kernel 13 | 200 | 210 | 12.3 | 16.3x | 17.0x | 24.2x | 1.25x |" in embedded
    assert "old" not in embedded
    assert embedded.startswith("before\n")
    assert embedded.endswith("\nafter")
    assert pages.readme(embedded, results) == embedded
    with pytest.raises(ValueError, match="no marks"):
        pages.readme("nothing", results)
    assert softmax.rows(fake_result())[0][2] == ""


def test_every_case_can_run_on_the_kernel_and_has_a_plan():
    for case in softmax.CASES:
        assert case.pattern.bind(case.grid).pairs() > 0
    assert len(softmax.RANKED) >= 12
    for words in softmax.RANKED:
        simulated, counted = softmax._predicted(windeye.patterns.parse(words), (64, 64))
        assert simulated >= 1
        assert counted == pytest.approx(simulated)  # no lane idles in these settings: the boxes fit the grid
    names = [name for name, _ in softmax.parts()]
    assert len(names) == len(set(names))
    assert {"scaling", "memory", "ranking"} <= set(names)


def test_an_unknown_suite_is_refused():
    done = typed("bench", "hardmax")
    assert done.exit_code == 2
    assert "SUITE must be one of softmax" in done.stderr


@pytest.fixture(scope="module")
def windows():
    """The demo with one pattern, measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PATTERNS", {"window 5": windeye.Neighborhood(5)})
        ((name, measure),) = demo.measure(demo.tokens(photograph()), flex=False, rounds=3)
        measured = measure()
        assert name == measured.name == "window 5"
        yield measured


def test_the_demo_measures_proves_and_draws(windows):
    photo = photograph()
    qkv = demo.tokens(photo)
    assert torch.equal(qkv, demo.tokens(photo))
    assert windows.pairs == 4096 * 25
    assert windows.max_error < 1e-4
    assert windows.flex_seconds is None
    assert len(demo.picture(photo, qkv).axes) == 1


def test_the_demo_notices_a_wrong_kernel(monkeypatch):
    monkeypatch.setattr(demo, "HEADS", 1)
    qkv = demo.tokens(photograph())
    wrong = windeye.Neighborhood(5, stride=2)
    right = windeye.attend
    monkeypatch.setattr(demo, "attend", lambda q, k, v, _pattern: right(q, k, v, wrong))
    assert demo.max_error(qkv, windeye.Neighborhood(5)) > 1e-2


def test_the_demo_command_writes_its_report(tmp_path: Path, monkeypatch, windows):
    monkeypatch.setattr(demo, "measure", lambda _qkv, *, flex: [(windows.name, lambda: windows)] if not flex else [])
    done = typed("demo", "--no-flex", "--threads", 1, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "window 5" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "report.json", "seen.png"}
    assert "data:image/png" in (tmp_path / "report.html").read_text()
