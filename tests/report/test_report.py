"""Evidence, recorder and pages."""

import json

import pytest

from windeye.report import Check, Evidence, Picture, Recorder, Row, evidence_page, html, load, machine, versions
from windeye.report.figures import as_png, as_svg, canvas


def evidence(**facts):
    usual = {
        "slug": "gna", "claim": "windows <are> enough", "rule": "a above b", "verdict": "shown",
        "checks": (Check("a above b", "2 > 1", True),), "rows": (Row("a", "loss", (1.0, 2.0), "nats"),),
        "budget": "smoke", "seeds": (0, 1), "seconds": 1.5, "command": "windeye run gna",
    }  # fmt: skip
    return Evidence(**{**usual, **facts})


def test_evidence_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "gna.json"
    before = evidence(pictures=(Picture("t", "c", "<svg></svg>"),))
    before.save(path)
    assert load(path) == before
    before.save(path, pictures=False)
    assert load(path).pictures == ()
    assert list(path.parent.iterdir()) == [path]


def test_statistics_over_seeds():
    row = Row("a", "m", (1.0, 2.0, 3.0))
    assert (row.mean, row.spread, row.n) == (2.0, 1.0, 3)
    assert Row("a", "m", (4.0,)).spread == 0.0
    assert evidence().row("a", "loss").mean == 1.5
    with pytest.raises(KeyError, match="no row"):
        evidence().row("a", "accuracy")


def test_a_verdict_cannot_be_shown_against_its_own_checks():
    with pytest.raises(ValueError, match="not every check"):
        evidence(checks=(Check("a above b", "1 < 2", False),))
    with pytest.raises(ValueError, match="not every check"):
        evidence(checks=())
    with pytest.raises(ValueError, match="verdict must be one of"):
        evidence(verdict="maybe")


@pytest.mark.parametrize("text", ["", "{", "{}", '{"slug": 1}', json.dumps({"rows": [], "checks": [], "pictures": []})])
def test_what_is_not_evidence_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not evidence"):
        load(path)


def test_the_page_is_self_contained_and_escapes_what_it_is_given():
    page = evidence_page(evidence(pictures=(Picture("a <b>", "c", "<svg><rect/></svg>"),), limits="few & small"))
    assert "windows &lt;are&gt; enough" in page
    assert "a &lt;b&gt;" in page
    assert "few &amp; small" in page
    assert "<svg><rect/></svg>" in page
    for outside in ("http://", "https://", "<script", "<link"):
        assert outside not in page
    for word in ("shown", "a above b", "1.5", "windeye run gna", "nats"):
        assert word in page


def test_the_page_shows_pictures_before_rows_and_no_spread_of_a_single_value():
    rows = (Row("many", "loss", (1.0, 2.0), "nats"), Row("single", "FLOPs", (9.5,), "x"))
    page = evidence_page(evidence(rows=rows, pictures=(Picture("a", "b", "<svg><rect/></svg>"),)))
    assert page.index("<svg>") < page.index("<td>many</td>")
    assert "<td>single</td><td>FLOPs</td><td>9.5</td><td></td><td>1</td>" in page
    assert "<td>many</td><td>loss</td><td>1.5</td><td>0.71</td><td>2</td>" in page


def test_pictures_must_hold_their_own_content():
    with pytest.raises(ValueError, match="neither SVG nor"):
        html.picture(Picture("t", "c", "file.png"))


def test_figures_become_content():
    figure, axes = canvas()
    axes.plot([1, 2])
    assert as_svg(figure, "t", "c").content.startswith("<svg")
    assert as_png(figure, "t", "c").content.startswith("data:image/png;base64,")


def test_recorder_keeps_finished_parts_when_a_later_one_is_interrupted(tmp_path):
    path = tmp_path / "parts.jsonl"
    calls = []

    def work(name, fail=False):
        calls.append(name)
        if fail:
            raise KeyboardInterrupt
        return {"name": name, "pair": (1, 2)}

    first = Recorder(path, {"a": 1})
    assert first.part("one", lambda: work("one")) == {"name": "one", "pair": [1, 2]}
    with pytest.raises(KeyboardInterrupt):
        first.part("two", lambda: work("two", fail=True))
    with path.open("a") as file:
        file.write('{"settings": "cut off')
    again = Recorder(path, {"a": 1})
    assert "one" in again
    assert "two" not in again
    assert again.part("one", lambda: work("one")) == {"name": "one", "pair": [1, 2]}
    again.part("two", lambda: work("two"))
    assert calls == ["one", "two", "two"]


def test_recorder_does_not_mix_settings(tmp_path):
    path = tmp_path / "parts.jsonl"
    Recorder(path, {"steps": 1}).part("a", lambda: 1)
    assert Recorder(path, {"steps": 2}).part("a", lambda: 2) == 2
    assert Recorder(path, {"steps": 1}).part("a", lambda: 3) == 1


def test_machine_and_versions_are_named():
    assert {"processor", "cores", "system"} <= machine().keys()
    assert {"python", "torch", "windeye"} <= versions().keys()
    assert "/" not in "".join(machine().values()).replace("GenuineIntel", "")
