"""`windeye inspect`: what it prints, what it writes, and what it says of bad input."""

import json

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from cli.typed import windeye
from inspection.small import save, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save(tmp_path_factory.mktemp("model")))


def inspect(*arguments):
    return windeye("inspect", *arguments)


def test_tables_of_layers_kinds_and_tokens(folder):
    done = inspect(folder, text(30))
    assert done.exit_code == 0, done.output
    for words in ("layer", "entropy", "kinds of heads", "induction", "most attention", "30 tokens, 3 layers, 4 heads"):
        assert words in done.output
    by_head = inspect(folder, text(30), "--heads", "--layers", "1", "--stats", "entropy,waad:5")
    assert [line.split()[0] for line in by_head.output.splitlines() if line.startswith("1.")] == [
        f"1.{head}" for head in range(4)
    ]
    assert "waad:5" in by_head.output
    assert "most attention" not in by_head.output


def test_numbers_as_json_and_a_page(folder, tmp_path):
    page = tmp_path / "deep" / "report.html"
    done = inspect(folder, text(30), "--json", "--out", page, "--max-tokens", 20)
    told = json.loads(done.stdout)
    assert told["tokens"] == 20
    assert len(told["per_head"]["entropy"]) == 3
    assert "<canvas" in page.read_text()
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_text_comes_from_a_file_or_standard_input(folder, tmp_path):
    (tmp_path / "a.txt").write_text(text(12))
    from_file = json.loads(inspect(folder, "--file", tmp_path / "a.txt", "--json").stdout)
    piped = windeye("inspect", folder, "--file", "-", "--json", input=text(12))
    given = json.loads(inspect(folder, text(12), "--json").stdout)
    for told in (from_file, json.loads(piped.stdout)):
        assert told["signals"] == given["signals"]


def test_steering_shows_before_and_after(folder, tmp_path):
    edits, page = tmp_path / "edits.json", tmp_path / "report.html"
    edits.write_text('[{"edit": "scale", "site": "z", "factor": 0.0, "heads": {"0": [0, 1]}}]')
    told = json.loads(inspect(folder, text(20), "--steer", edits, "--new-tokens", 4, "--json").stdout)
    before, after = told["before"]["per_head"]["entropy"], told["after"]["per_head"]["entropy"]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert told["next"]["before"] != told["next"]["after"]
    plain = json.loads(inspect(folder, text(20), "--json").stdout)
    assert plain["per_head"] == told["before"]["per_head"]
    shown = inspect(folder, text(20), "--steer", edits, "--new-tokens", 4, "--out", page)
    assert "before: " in shown.output
    assert "statistics before and after" in shown.output
    assert "Before and after the edits" in page.read_text()
    edits.write_text("[]")
    same = json.loads(inspect(folder, text(20), "--steer", edits, "--new-tokens", 4, "--json").stdout)
    assert same["next"]["before"] == same["next"]["after"]
    assert same["text"]["before"] == same["text"]["after"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smollm2", "a"], "did you mean 'smollm2-135m-instruct'? There are smollm2-135m-instruct"),
        (["./nowhere", "a"], "there is no folder or file ./nowhere"),
        (["MODEL"], "give either TEXT or --file"),
        (["MODEL", "w1", "--file", "x"], "give either TEXT or --file"),
        (["MODEL", "  "], "the text is empty"),
        (["MODEL", "--file", "/nowhere.txt"], "--file /nowhere.txt cannot be read"),
        (["MODEL", "w1", "--layers", "2-7"], "the model has layers 0 to 2"),
        (["MODEL", "w1", "--layers", "x"], "numbers and ranges such as 0-3,17"),
        (["MODEL", "w1", "--stats", "entropie"], "there is no statistic 'entropie'; there are waad"),
        (["MODEL", text(90)], "the text has 90 tokens, LlamaForCausalLM has positions for 64"),
        (["MODEL", "w1", "--steer", "/nowhere.json"], "--steer /nowhere.json cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, said):
    done = inspect(*(folder if word == "MODEL" else word for word in arguments))
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ("{", "edits are not JSON"),
        ('[{"edit": "explode"}]', "edits are key_bias"),
        ('[{"edit": "scale", "site": "z", "factor": 0.0, "layers": [3]}]', "the model has layers 0 to 2"),
        ('[{"edit": "scale", "site": "z", "factor": 0.0, "heads": [4]}]', "heads 0 to 3"),
    ],
)
def test_edits_that_cannot_be_are_refused(folder, tmp_path, edits, said):
    (tmp_path / "edits.json").write_text(edits)
    done = inspect(folder, "w1 w2", "--steer", tmp_path / "edits.json")
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_an_interrupted_inspection_writes_nothing(folder, tmp_path, monkeypatch):
    from windeye.inspection import measure

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "run", interrupted)
    done = inspect(folder, text(20), "--out", tmp_path / "report.html")
    assert done.exit_code == 130
    assert "nothing was written" in done.output
    assert list(tmp_path.iterdir()) == []
