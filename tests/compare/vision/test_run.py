"""`windeye compare vision`: every part in little, resumed, joined and shown; wrong words are answered."""

import json

import pytest
import torch
from PIL import Image

from cli.typed import windeye
from windeye.compare.page import page
from windeye.compare.vision import arms, memory, selected
from windeye.compare.vision.page import SHOWN
from windeye.compare.vision.run import PARTS, run
from windeye.compare.vision.tables import table
from windeye.models.vision import HierarchicalBackbone, load_backbone

SOME = ["window", "bi_level_routing", "position"]


def never(*_arguments, **_options):
    raise AssertionError("done again")


@pytest.fixture(scope="module", autouse=True)
def without_processes():
    """A fresh Python per peak takes seconds to start; peaks are proven where they are measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_forked", lambda names, _work, side, _plan: dict.fromkeys(names, side << 20))
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    told = []
    result = run(
        SOME, data="made-scenes", budget="smoke", folder=folder, command="a command",
        progress=lambda name, share: told.append((name, share)),
    )  # fmt: skip
    return result, told, folder


def test_every_arm_is_in_every_part_and_full_attention_among_them(smoke):
    result, _, _ = smoke
    names = {"full", *SOME}
    assert result["arms"].keys() == names
    assert list(result["parts"]) == list(PARTS)
    found = result["parts"]["accuracy"]["results"]
    assert found["data"] == {"name": "made-scenes", "classes": 6, "train": 24_000, "test": 64}
    assert found["arms"].keys() == names
    for works in result["parts"]["speed"]["results"].values():
        for taken in works.values():
            assert taken.keys() == names
            assert all(point["seconds"] > 0 and point["bytes"] >= 0 for points in taken.values() for point in points)
    assert all(part["command"] == "a command" for part in result["parts"].values())


def test_what_arms_cost_is_what_they_are(smoke):
    found = smoke[0]["parts"]["accuracy"]["results"]["arms"]
    assert found["position"]["pairs"] == found["position"]["attention"] == 0
    # 8 x 8 tokens in two blocks of two heads, then 4 x 4.
    assert found["full"]["pairs"] == 2 * 2 * (64**2 + 16**2)
    assert found["window"]["pairs"] == 2 * 2 * 16 * (64 + 16)


def test_progress_rises_to_one(smoke):
    shares = [share for _, share in smoke[1]]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_the_model_of_every_arm_is_left_trained(smoke):
    for name in ("full", *SOME):
        model = load_backbone(smoke[2] / "models" / f"{name}.safetensors")
        assert isinstance(model, HierarchicalBackbone)
        assert model(torch.zeros(1, 1, 16, 16)).shape == (1, 6)


def test_finished_pieces_are_read_back_to_the_bit(smoke, monkeypatch):
    for name in ("choose_rate", "train_arm", "seconds", "peaks"):
        monkeypatch.setattr(f"windeye.compare.vision.run.{name}", never)
    again = run(SOME, data="made-scenes", budget="smoke", folder=smoke[2])
    for part in PARTS:
        assert again["parts"][part]["results"] == smoke[0]["parts"][part]["results"]
    with pytest.raises(AssertionError, match="done again"):
        run(SOME, ["accuracy"], data="made-scenes", size=20, budget="smoke", folder=smoke[2])


def test_the_page_shows_pictures_and_a_table_of_every_part(smoke):
    shown = page(smoke[0], SHOWN)
    assert shown.count("<svg") == 3
    for part, found in smoke[0]["parts"].items():
        columns, rows = table(part, found)
        assert all(len(row) == len(columns) for row in rows)
        assert len(rows) == 4 * (2 if part == "speed" else 1)
    assert all(words in shown for words in smoke[0]["arms"].values())


def test_accuracy_is_listed_from_the_best():
    def arm(*accuracies):
        runs = [{"accuracy": a, "steps": 5, "seconds": 0.4, "diverged": a < 0.2} for a in accuracies]
        choice = {"rate": 0.006}
        return {"parameters": 1234, "multiply_adds": 2_500_000, "pairs": 3000, "choice": choice, "runs": runs}

    found = {"plan": {"batch_size": 10}, "results": {"arms": {"a": arm(0.1, 0.2), "b": arm(1.0, 1.0)}}}
    _, rows = table("accuracy", found)
    assert rows == [
        ("b", "100.0 ± 0.0 %", "0.006", "1,234", "2.5", "3", "8.00"),
        ("a (1 of 2 diverged)", "15.0 ± 7.1 %", "0.006", "1,234", "2.5", "3", "8.00"),
    ]


def test_a_point_that_was_not_measured_is_a_dash():
    points = [{"seconds": 0.5, "bytes": 2**21}, {"seconds": None, "bytes": None}]
    results = {"cpu": {"training": {"a": points}, "inference": {"a": points[:1] * 2}}}
    _, rows = table("speed", {"plan": {"sides": [32, 64], "skeleton": {"patch": 2}}, "results": results})
    assert rows == [("cpu, training, ms: a", "500", "-", "-"), ("cpu, inference, ms: a", "500", "500", "2")]


def test_the_order_of_arms_is_that_of_the_table():
    assert [arm.name for arm in selected(["none", "window"])] == ["full", "window", "none"]
    assert selected(None) == tuple(arms().values())


def test_parts_that_were_run_before_stay_in_the_report(tmp_path):
    common = ("compare", "vision", "--budget", "smoke", "--mixers", "none", "--data", "made-scenes", "--out", tmp_path)
    first = windeye(*common, "--parts", "accuracy")
    assert first.exit_code == 0, first.output
    assert "M multiply-adds" in first.stdout
    second = windeye(*common, "--parts", "speed", "--json")
    assert second.exit_code == 0, second.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(second.stdout) == report
    assert set(report["parts"]) == {"accuracy", "speed"}
    assert (
        report["parts"]["speed"]["command"]
        == "windeye compare vision --mixers none --data made-scenes --budget smoke --parts speed"
    )


def test_what_was_finished_before_ctrl_c_is_kept(tmp_path, monkeypatch):
    from windeye.compare.vision import run as module

    done = []
    real = module.train_arm

    def stopping(arm, *rest, **options):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(arm.name)
        return real(arm, *rest, **options)

    words = ("compare", "vision", "--budget", "smoke", "--mixers", "none", "--data", "made-scenes", "--out", tmp_path)
    monkeypatch.setattr(module, "train_arm", stopping)
    stopped = windeye(*words, "--parts", "accuracy")
    assert stopped.exit_code == 130
    assert "run again to go on" in " ".join(stopped.stderr.split())

    def going_on(arm, *rest, **options):
        done.append(arm.name)
        return real(arm, *rest, **options)

    monkeypatch.setattr(module, "train_arm", going_on)
    assert windeye(*words, "--parts", "accuracy").exit_code == 0
    assert done == ["full", "none"]


def test_every_mixer_takes_a_rate_of_its_own_from_those_that_are_named(tmp_path, monkeypatch):
    from windeye.compare.vision import run as module

    real, taken = module.train_arm, []

    def watched(arm, *rest, rate):
        taken.append((arm.name, rate))
        return real(arm, *rest, rate=rate)

    monkeypatch.setattr(module, "train_arm", watched)
    words = ("compare", "vision", "--budget", "smoke", "--mixers", "none", "--data", "made-scenes", "--json")
    done = windeye(*words, "--parts", "accuracy", "--rates", "1e-2,3e-3", "--steps", "1", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["parts"]["accuracy"]
    choices = {name: arm["choice"] for name, arm in found["results"]["arms"].items()}
    assert all(choice["rates"] == [0.01, 0.003] and len(choice["scores"]) == 2 for choice in choices.values())
    assert taken == [(name, choice["rate"]) for name, choice in choices.items()]
    assert (found["plan"]["rates"], found["plan"]["steps"]) == ([0.01, 0.003], 1)
    assert found["command"].endswith("--rates 1e-2,3e-3 --steps 1 --budget smoke --parts accuracy")
    monkeypatch.setattr(module, "choose_rate", never)  # the trials are read back, too
    again = windeye(*words, "--parts", "accuracy", "--rates", "1e-2,3e-3", "--steps", "1", "--out", tmp_path)
    assert json.loads(again.stdout)["parts"]["accuracy"]["results"] == found["results"]


def test_pictures_of_ones_own_are_trained_on(tmp_path):
    for name, shade in (("dark", 20), ("light", 220)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (20 + number, 31), shade).save(tmp_path / "own" / name / f"{number}.png")
    words = ("compare", "vision", "--budget", "smoke", "--mixers", "none", "--parts", "accuracy", "--size", "20")
    done = windeye(*words, "--data", tmp_path / "own", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["parts"]["accuracy"]
    assert found["results"]["data"] == {"name": "own", "classes": 2, "train": 8, "test": 2}
    assert found["plan"]["skeleton"]["side"] == 20
    (tmp_path / "own" / "dark" / "bad.png").write_text("no image")
    bad = windeye(*words, "--data", tmp_path / "own", "--out", tmp_path / "out")
    assert bad.exit_code == 2
    assert "bad.png is not an image" in " ".join(bad.stderr.split())


def test_data_that_cannot_be_fetched_are_told_with_what_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDEYE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("WINDEYE_OFFLINE", "1")
    done = windeye("compare", "vision", "--budget", "smoke", "--parts", "accuracy", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "fashion-mnist" in done.stderr
    assert "WINDEYE_OFFLINE" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mixers", "full,swin"), "unknown mixer 'swin'; known are full, window, shifted_window, neighborhood"),
        (("--parts", "accuracy,taste"), "unknown part 'taste'; known are accuracy, speed"),
        (("--parts", ","), "parts must name at least one of accuracy, speed"),
        (("--budget", "huge"), "--budget must be one of smoke, default, full, got 'huge'"),
        (("--seeds", "0"), "seeds must be at least 1, got 0"),
        (("--size", "4"), "side must be at least 8, got 4"),
        (("--rates", "quick"), "--rates must be numbers joined by commas, such as 3e-3,1e-2, got 'quick'"),
        (("--rates", ","), "rates must name at least one learning rate above 0, got ()"),
        (("--steps", "0"), "steps must be at least 1, got 0"),
        (("--data", "imagenet"), "data must be one of fashion-mnist, made-scenes, or a folder"),
        (("--device", "gpu"), "device must be cpu or cuda, got 'gpu'"),
        pytest.param(
            ("--device", "cuda"), "torch finds no CUDA device here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)  # fmt: skip
def test_wrong_words_are_answered(words, message, tmp_path):
    done = windeye("compare", "vision", "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
