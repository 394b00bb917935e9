"""`windeye compare sequence`: every part in little, resumed, joined and shown; wrong words are answered."""

import json
from pathlib import Path

import pytest

from cli.typed import windeye
from windeye.compare import pages
from windeye.compare.page import page
from windeye.compare.sequence import ARMS, Arm, selected
from windeye.compare.sequence.page import SHOWN
from windeye.compare.sequence.run import PARTS, run
from windeye.compare.sequence.tables import table
from windeye.models import MIXERS, DecoderConfig
from windeye.report import Pieces, Recorder

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    told = []
    result = run(
        budget="smoke", folder=folder, command="a command", progress=lambda name, share: told.append((name, share))
    )
    return result, told, folder


def numbers(result):
    return {part: found["results"] for part, found in result["parts"].items()}


def test_every_arm_is_in_every_part(smoke):
    result, _, _ = smoke
    assert result["arms"].keys() == ARMS.keys()
    assert list(result["parts"]) == list(PARTS)
    for part in ("recall", "language"):
        assert result["parts"][part]["results"].keys() == ARMS.keys()
    for taken in result["parts"]["throughput"]["results"].values():
        assert taken.keys() == ARMS.keys()
        assert all(second > 0 for seconds in taken.values() for second in seconds)
    for found in result["parts"].values():
        assert found["command"] == "a command"
        assert {"processor", "threads"} <= found["machine"].keys()
        assert found["machine"]["threads"] == "1"


def test_progress_rises_to_one(smoke):
    shares = [share for _, share in smoke[1]]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_finished_pieces_are_read_back_to_the_bit(smoke, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("done again")

    for name in ("train_language", "seconds"):
        monkeypatch.setattr(f"windeye.compare.sequence.run.{name}", never)
    for name in ("train_recall", "choose_rate"):
        monkeypatch.setattr(f"windeye.compare.sequence.recall.{name}", never)
    again = run(budget="smoke", folder=smoke[2])
    assert numbers(again) == numbers(smoke[0])


def test_a_stopped_run_keeps_what_was_finished(tmp_path):
    def stop(_tell):
        raise KeyboardInterrupt

    done = []
    pieces = Pieces(Recorder(tmp_path / "parts.jsonl", {}), lambda _name, _share: None, total=2)
    pieces.do("first", lambda _: done.append("first") or 0.125)
    with pytest.raises(KeyboardInterrupt):
        pieces.do("second", stop)
    pieces = Pieces(Recorder(tmp_path / "parts.jsonl", {}), lambda _name, _share: None, total=2)
    assert pieces.do("first", stop) == 0.125
    assert pieces.do("second", lambda _: 7) == 7
    assert done == ["first"]


def test_the_page_shows_a_picture_and_a_table_of_every_part(smoke):
    shown = page(smoke[0], SHOWN)
    assert shown.count("<svg") == len(PARTS)
    for arm in ARMS.values():
        assert arm.words in shown
    for part, found in smoke[0]["parts"].items():
        columns, rows = table(part, found)
        assert all(len(row) == len(columns) for row in rows)
        assert len(rows) == len(ARMS) * (3 if part == "throughput" else 1)


def test_recall_is_listed_from_the_best():
    def runs(*accuracies):
        one = {"state_bytes": 1000, "steps": 5, "parameters": 9, "diverged": False}
        return {"choice": {"rate": 0.003}, "runs": [{"accuracy": a, **one} for a in accuracies]}

    found = {"plan": {"task": {"length": 64}}, "results": {"a": runs(0.1, 0.2), "b": runs(1.0, 1.0)}}
    _, rows = table("recall", found)
    assert [row[:3] for row in rows] == [("b", "1,000 B", "100.0 ± 0.0 %"), ("a", "1,000 B", "15.0 ± 7.1 %")]


def test_seeds_that_diverged_are_counted_beside_the_name():
    one = {"state_bytes": 1000, "parameters": 9, "seconds": 1.0}
    runs = [{"bits_per_byte": bits, "diverged": bits == 8.0, **one} for bits in (8.0, 2.0, 8.0)]
    _, rows = table("language", {"plan": {"length": 16}, "results": {"a": runs}})
    assert rows[0][:2] == ("a (2 of 3 diverged)", "6.000 ± 3.464")


def test_a_point_that_was_not_timed_is_a_dash():
    results = {work: {"a": [0.5, None]} for work in ("training", "prefill", "decoding")}
    _, rows = table("throughput", {"plan": {"lengths": [1000, 2000]}, "results": results})
    assert rows == [
        ("training, k tokens/s: a", "2.0", "-"),
        ("prefill, k tokens/s: a", "2.0", "-"),
        ("decoding, ms per token: a", "500.00", "-"),
    ]


def test_softmax_is_always_among_the_arms_and_order_is_that_of_the_table():
    assert [arm.name for arm in selected(["based", "window"])] == ["softmax", "window", "based"]
    assert selected(None) == tuple(ARMS.values())


@pytest.mark.parametrize("arm", list(ARMS.values()), ids=list(ARMS))
def test_an_arm_is_made_of_registered_mixers(arm: Arm):
    config = DecoderConfig(32, 16, arm.mixers(4))
    assert DecoderConfig.from_dict(config.to_dict()) == config
    assert all(spec.kind in MIXERS for spec in arm.mixers(1))


def test_parts_that_were_run_before_stay_in_the_report(tmp_path):
    common = ("compare", "sequence", "--budget", "smoke", "--arms", "window", "--out", tmp_path)
    first = windeye(*common, "--parts", "throughput")
    assert first.exit_code == 0, first.output
    assert "training, k tokens/s: window" in first.stdout
    second = windeye(*common, "--parts", "recall", "--seeds", "2", "--json")
    assert second.exit_code == 0, second.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(second.stdout) == report
    assert set(report["parts"]) == {"recall", "throughput"}
    assert [len(arm["runs"]) for arm in report["parts"]["recall"]["results"].values()] == [2, 2]
    assert (
        report["parts"]["recall"]["command"]
        == "windeye compare sequence --arms window --seeds 2 --budget smoke --parts recall"
    )
    assert (tmp_path / "report.html").read_text().count("<svg") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arms", "softmax,mamba"), "unknown arm 'mamba'; known are softmax, window, tnl, based"),
        (("--parts", "recall,taste"), "unknown part 'taste'; known are recall, language, throughput"),
        (("--parts", ","), "parts must name at least one of recall, language, throughput"),
        (("--budget", "huge"), "--budget must be one of smoke, default, full, got 'huge'"),
        (("--seeds", "0"), "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_words_are_answered(words, message, tmp_path):
    done = windeye("compare", "sequence", "--out", tmp_path, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_part_is_written_between_its_marks_and_says_where_it_is_from(smoke):
    marks = "".join(f"<!-- {name} -->\nold\n<!-- end of {name} -->\n" for name in ("sequence", *PARTS))
    text = pages.comparison(marks, "sequence", smoke[0])
    assert "old" not in text
    for name, words in smoke[0]["arms"].items():
        assert f"| {name} | {words} |" in text
    assert text.count("`a command`") == len(PARTS)
    assert pages.comparison(text, "sequence", smoke[0]) == text
    with pytest.raises(ValueError, match="marks <!-- sequence -->"):
        pages.comparison("no marks", "sequence", smoke[0])


def test_the_page_shows_the_committed_comparisons():
    """`make tables` writes it."""
    text = (ROOT / "docs" / "compare.md").read_text()
    for name, result in pages.committed(ROOT).items():
        assert pages.comparison(text, name, result) == text
