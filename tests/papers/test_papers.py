"""Cards, computed states, and running an experiment from the command line."""

import json
import re
from dataclasses import asdict, replace
from datetime import date, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path

import grimp
import pytest

from cli.typed import windeye
from windeye.papers import card, fna, provenance, registry
from windeye.papers import run as runs
from windeye.papers.run import run
from windeye.report import Check
from windeye.report import code as report_code

ROOT = Path(__file__).parents[2]


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


def test_parts_of_other_code_are_computed_anew_and_those_of_the_same_code_are_not(tmp_path, monkeypatch):
    calls = []

    class Paper:
        SEEDS = fna.SEEDS

        @staticmethod
        def experiment(settings):
            settings.recorder.part("a part", lambda: calls.append(1))
            return evidence

    evidence = registry.evidence_of(card.cards()["fna"])
    monkeypatch.setattr(runs, "experiment_of", lambda _card: Paper)
    for code, computed in (("one", 1), ("one", 1), ("two", 2), ("two", 2), ("one", 2)):
        monkeypatch.setattr(provenance, "code", lambda _card, code=code: code)
        run("fna", budget="smoke", out=tmp_path)
        assert len(calls) == computed
    monkeypatch.setattr(provenance, "versions", lambda: {"windeye": "another"})
    run("fna", budget="smoke", out=tmp_path)
    assert len(calls) == 3
    run("fna", budget="smoke", seeds=(1,), out=tmp_path)
    assert len(calls) == 3


LIBRARY = (
    "papers/fna.py", "papers/gna/__init__.py", "papers/gna/speed.py", "papers/denoiser.py", "compare/training.py",
    "compare/sequence/recall.py", "compare/vision/speed.py", "kernels/a/lanes.py",
)  # fmt: skip


@pytest.fixture
def library(tmp_path):
    for name in (*LIBRARY, "patterns/table.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    return tmp_path


@pytest.mark.parametrize("slug", ["fna", "gna"])
def test_code_is_the_paper_what_papers_share_and_the_kernels(library, slug):
    one = card.find(slug)
    before = provenance.code(one, library)
    assert provenance.code(one, library) == before
    for name in (*LIBRARY, "patterns/table.py"):
        path = library / name
        kept = path.read_text()
        path.write_text("# changed")
        other = "gna" if slug == "fna" else "fna.py"
        counts = not name.startswith((f"papers/{other}", "patterns", "compare/vision"))
        assert (provenance.code(one, library) != before) == counts, name
        path.write_text(kept)
    assert provenance.code(one, library) == before


def test_a_new_or_renamed_file_of_a_package_is_other_code(library):
    before = provenance.code(card.find("gna"), library)
    (library / "papers/gna/speed.py").rename(library / "papers/gna/timing.py")
    renamed = provenance.code(card.find("gna"), library)
    (library / "papers/gna/more.py").write_text("")
    assert len({before, renamed, provenance.code(card.find("gna"), library)}) == 3


def test_another_compiled_kernel_is_other_code(library, monkeypatch):
    before = provenance.code(card.find("fna"), library)
    (library / "_cpu.so").write_bytes(b"another build")
    spec = ModuleSpec("windeye._cpu", None, origin=str(library / "_cpu.so"))
    monkeypatch.setattr(report_code.util, "find_spec", lambda _name: spec)
    built = provenance.code(card.find("fna"), library)
    monkeypatch.setattr(report_code.util, "find_spec", lambda _name: None)
    assert len({before, built, provenance.code(card.find("fna"), library)}) == 3


def test_neither_papers_nor_what_they_share_import_another_paper():
    graph = grimp.build_graph("windeye", cache_dir=None)
    written = {f"windeye.papers.{c.module}" for c in card.cards().values()} & graph.find_children("windeye.papers")
    assert {"windeye.papers.fna", "windeye.papers.gna"} <= written
    for paper in written:
        inside = graph.find_descendants(paper) | {paper}
        importers = {name for module in inside for name in graph.find_modules_that_directly_import(module)}
        assert not {name for name in importers - inside if name.startswith("windeye.papers.")}, paper


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
