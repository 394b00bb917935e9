"""Cards, computed states, and running an experiment from the command line."""

import json
import re
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from windeye.cli.main import app
from windeye.papers import card, fna, registry
from windeye.papers.run import run
from windeye.report import Check

ROOT = Path(__file__).parents[2]


def windeye(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


SYSTEMS = {
    "windows": "gna fna freeswim pt-dit flatformer",
    "backbones": "hilo vsa biformer maformer efficient-probing wau dual-frequency",
    "sequence": "lightning-attention lightning-attention-2 based titans dma",
    "memory": "vattention longheads",
    "inspect": "preplan-anchor circuit-reuse llm-graphs context-awareness attention-perturbation consciousness-prior",
    "steer": "vhr imbalanced-attention gift carve",
    "gui": "v2p focus-gui",
    "gaze": "oat nevaclip diffeye visual-search-asymmetry",
    "audio": "cace-net indicwav2vec",
}
UNWRITTEN = replace(card.cards()["oat"], slug="no-such-system")
"""A card whose module nobody will ever write."""


def test_there_is_a_card_for_each_of_the_37_systems_in_its_family_and_in_order():
    cards = card.cards()
    assert len(cards) == 37
    assert [(c.family, slug) for slug, c in cards.items()] == [
        (family, slug) for family in card.FAMILIES for slug in SYSTEMS[family].split()
    ]


@pytest.mark.parametrize("field", ["title", "arxiv", "summary", "claim", "module"])
def test_no_two_cards_share(field):
    assert len({getattr(c, field) for c in card.cards().values()}) == 37


@pytest.mark.parametrize("slug", list(card.cards()))
def test_a_card_is_complete(slug):
    c = card.cards()[slug]
    for name in ("title", "authors", "summary", "claim"):
        text = getattr(c, name)
        assert len(text) > 5
        assert text == " ".join(text.split())
    assert c.module.isidentifier()
    assert re.fullmatch(r"\d{4}\.\d{5}", c.arxiv)
    assert c.code == "" or re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", c.code)


@pytest.mark.parametrize("slug", list(card.cards()))
def test_a_paper_was_posted_in_the_month_of_its_arxiv_number(slug):
    c = card.cards()[slug]
    first = date.fromisoformat(c.posted if len(c.posted) == 10 else f"{c.posted}-01")
    numbered = first + timedelta(days=3)  # what is sent in on the last days of a month is numbered in the next
    assert c.arxiv[:4] in (f"{first:%y%m}", f"{numbered:%y%m}")


@pytest.mark.parametrize("slug", list(card.cards()))
def test_a_summary_is_two_short_sentences_and_a_claim_says_what_would_count(slug):
    c = card.cards()[slug]
    assert len(c.summary) < 400
    assert sentences(c.summary) == 2
    assert c.summary.endswith(".")
    claim, counts = c.claim.split(" Counts if")
    assert sentences(claim) == 1
    assert len(counts) > 40


def sentences(text):
    return len(re.findall(r"[.!?](?=\s|$)", text))


def test_search_and_find():
    assert [c.slug for c in card.search("neighborhood ATTENTION")] == ["gna", "fna"]
    assert card.search("2403.04690") == [card.cards()["fna"]]
    assert [c.slug for c in card.search("human gaze")] == SYSTEMS["gaze"].split()
    assert card.search("") == list(card.cards().values())
    assert card.search("no such words at all") == []
    assert card.find("fna") is card.cards()["fna"]
    with pytest.raises(ValueError, match=r"no paper 'gnaa'; did you mean gna"):
        card.find("gnaa")
    with pytest.raises(ValueError, match=r"no paper 'zzzz'; `windeye papers` lists them"):
        card.find("zzzz")


def test_states_are_computed(monkeypatch):
    assert registry.state(UNWRITTEN) == "planned"
    monkeypatch.setattr(registry, "evidence_of", lambda _card: None)
    assert registry.state(card.cards()["fna"]) == "built"


@pytest.mark.parametrize(
    ("facts", "argument", "expected"),
    [
        ({"verdict": "shown"}, "", "works"),
        ({"verdict": "shown", "budget": "smoke"}, "", "built"),
        ({"verdict": "not shown"}, "", "built"),
        ({"verdict": "not shown"}, "too small a model", "works"),
        ({"verdict": "opposite"}, "too small a model", "built"),
    ],
)
def test_state_follows_from_evidence(monkeypatch, facts, argument, expected):
    evidence = registry.evidence_of(card.cards()["fna"])
    assert evidence is not None
    if facts["verdict"] == "shown":
        facts = facts | {"checks": (Check("a", "b", True),)}
    monkeypatch.setattr(registry, "evidence_of", lambda _card: replace(evidence, **facts))
    monkeypatch.setattr(fna, "ARGUMENT", argument, raising=False)
    assert registry.state(card.cards()["fna"]) == expected


def test_committed_evidence_is_of_real_runs():
    assert {path.stem for path in (ROOT / "evidence").glob("*.json")} <= set(card.cards())
    for c in card.cards().values():
        evidence = registry.evidence_of(c)
        if evidence is not None:
            assert evidence.slug == c.slug
            assert evidence.budget != "smoke"
            assert len(evidence.seeds) >= 3
            assert evidence.command.startswith(f"windeye run {c.slug}")
            assert all(row.n >= 1 for row in evidence.rows)


def test_a_run_leaves_a_report_and_goes_on_where_it_stopped(tmp_path):
    seen = []
    first = run("fna", budget="smoke", out=tmp_path, progress=lambda _part, share: seen.append(share))
    assert first.json.is_file()
    assert "fna" in first.html.read_text()
    assert seen
    assert seen[-1] <= 1.0
    parts = (tmp_path / "parts.jsonl").read_text()
    again = run("fna", budget="smoke", out=tmp_path)
    assert (tmp_path / "parts.jsonl").read_text() == parts
    assert again.evidence.rows == first.evidence.rows


def test_run_from_the_command_line(tmp_path):
    done = windeye("run", "fna", "--budget", "smoke", "--seed", "1", "--out", tmp_path)
    assert done.exit_code in (0, 1)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert done.exit_code == (0 if facts["verdict"] == "shown" else 1)
    assert facts["seeds"] == [1]
    assert facts["command"] == "windeye run fna --budget smoke --seed 1"
    assert facts["verdict"] in done.stdout


def test_the_list_names_every_system_in_full_however_narrow(monkeypatch):
    for width in ("60", "100", "200"):
        monkeypatch.setenv("COLUMNS", width)
        lines = windeye("papers").stdout.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == list(card.cards())
        assert "…" not in "".join(lines)
        assert lines[-1].startswith("37 of 37 systems")


def test_a_slug_alone_shows_its_card():
    for words in (("fna",), ("FNA",)):
        told = " ".join(windeye("papers", *words).stdout.split())
        for fact in ("Reducing the O(n^2) Cost", "arxiv.org/abs/2403.04690", "github.com/SHI-Labs/NATTEN", "5 seeds"):
            assert fact in told
        assert card.cards()["fna"].summary in told
        assert "windeye run fna" in told
    assert "no official code" in windeye("papers", "titans").stdout


def test_words_family_and_json_select_cards():
    assert "3 of 37 systems" in windeye("papers", "sliding", "window").stdout
    assert windeye("papers", "sliding window").stdout == windeye("papers", "sliding", "window").stdout
    listed = json.loads(windeye("papers", "--family", "windows", "--json").stdout)
    assert [c["slug"] for c in listed] == SYSTEMS["windows"].split()
    (told,) = json.loads(windeye("papers", "fna", "--json").stdout)
    assert told == asdict(card.cards()["fna"]) | {"state": registry.state(card.cards()["fna"])}


def test_words_that_find_nothing_are_answered():
    assert windeye("papers", "gnaa").stdout == "no system mentions 'gnaa'; did you mean gna?\n"
    assert "no system in the family gui mentions 'window'" in windeye("papers", "window", "--family", "gui").stdout
    assert json.loads(windeye("papers", "gnaa", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "gnaa"), "did you mean"),
        (("run", "fna", "--budget", "huge"), "--budget must be one of smoke, default, full"),
        (("papers", "--family", "doors"), "--family must be one of windows"),
        (("papers", "fna", "--family", "gui"), "fna is of the family windows, not gui"),
    ],
)
def test_bad_input(words, message):
    done = windeye(*words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_paper_without_an_experiment_cannot_be_run(monkeypatch):
    monkeypatch.setattr(card, "cards", lambda: {UNWRITTEN.slug: UNWRITTEN})
    done = windeye("run", UNWRITTEN.slug)
    assert done.exit_code == 2
    assert "no-such-system has a card but no experiment yet" in done.stderr
