"""`windeye probe` from beginning to end on a folder of small images."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cli.typed import windeye
from windeye.compare.probing import Heads, ProbePlan, arm_of, probe
from windeye.compare.probing.arms import losses
from windeye.compare.probing.pictures import scaled

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("accelerate")

SMALL = {"dim": 16, "depth": 1, "heads": 2, "patch": 8, "img_size": (16, 16), "num_classes": 0}
POOLS = ("average", "class_token", "ep:queries=4", "clip:heads=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red and blue noise: what even a random encoder tells apart."""
    path, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for channel, name in ((0, "red"), (2, "blue")):
            for number in range(count):
                pixels = random.integers(0, 90, (20, 24, 3))
                pixels[..., channel] += 150
                place = path / part / name
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return path


def plan_of(folder, **changes):
    defaults = {
        "pools": POOLS, "settings": SMALL, "side": 16, "epochs": 8, "warm_up": 1, "batch_size": 8, "optimiser": "adamw",
        "rate": 0.01,
    }  # fmt: skip
    return ProbePlan("vit_micro", str(folder), **defaults | changes)


def heads_in(path):
    return {file.name: load_file(file) for file in sorted((path / "heads").glob("*.safetensors"))}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[file][name], second[file][name]) for file in first for name in first[file]
    )


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return probe(plan_of(folder), path, command="by hand"), path


def test_pools_read_the_colour_and_the_result_says_at_what_cost(done, folder):
    result, path = done
    assert {name: found["accuracy"] for name, found in result["pools"].items()} == dict.fromkeys(POOLS, 100.0)
    parameters = {name: found["parameters"] for name, found in result["pools"].items()}
    assert parameters["average"] == parameters["class_token"] == 16 * 2 + 2
    assert parameters["ep:queries=4"] == 4 * 16 + 16 * 16 + 34
    assert all(found["seconds_per_step"] > 0 for found in result["pools"].values())
    assert result["encoder"]["tokens"] == [5]
    assert result["encoder"]["leading"] == 1
    assert result["data"] == {"name": str(folder), "classes": 2, "train": 24, "test": 12, "side": 16}
    assert result["nearest"]["accuracy"] >= 50
    assert len(result["history"]) == 8
    assert json.loads((path / "probe.json").read_text()) == json.loads(json.dumps(result))


def test_maps_are_told_in_numbers_and_drawn_on_a_page(done):
    result, path = done
    found = {name: pool["maps"] for name, pool in result["pools"].items()}
    assert found["class_token"] is None
    assert found["average"] == {"maps": 1, "overlap": 0.0, "evenness": pytest.approx(1.0)}
    assert found["ep:queries=4"]["maps"] == 4
    assert 0 < found["ep:queries=4"]["evenness"] < 1
    page = (path / "probe.html").read_text()
    for words in ("Where ep:queries=4 looks", "Accuracy over epochs", "by hand", "24 images to train on"):
        assert words in page
    assert "Where average looks" not in page


def test_tokens_that_are_not_kept_train_the_same_heads(done, folder, tmp_path):
    result = probe(plan_of(folder, keep_gib=0.0), tmp_path)
    assert result["nearest"] is None
    assert not (tmp_path / "tokens").exists()
    assert same(heads_in(tmp_path), heads_in(done[1]))


def test_a_head_learns_the_same_beside_others_and_alone(done, folder, tmp_path):
    probe(plan_of(folder, pools=("ep:queries=4",)), tmp_path)
    alone = heads_in(tmp_path)
    assert same(alone, {name: head for name, head in heads_in(done[1]).items() if name in alone})


@pytest.mark.parametrize("at", ["tokens test", "training"])
def test_what_was_stopped_goes_on_to_the_same_end(done, folder, tmp_path, at):
    told = []

    def stop(name, _share):
        told.append(name)
        if name == at and told.count(at) == (1 if at == "tokens test" else 14):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(plan_of(folder), tmp_path, progress=stop)
    result = probe(plan_of(folder), tmp_path)
    assert same(heads_in(tmp_path), heads_in(done[1]))
    assert result["history"] == done[0]["history"]


def test_the_folder_of_another_probe_is_left_alone(done, folder):
    with pytest.raises(ValueError, match=r"holds another probe: .*epochs 8 \(now 9\)"):
        probe(plan_of(folder, epochs=9), done[1])


def test_random_parts_differ_between_epochs_and_not_between_runs(folder, tmp_path):
    runs = [probe(plan_of(folder, augment=True, epochs=2), tmp_path / name) for name in "ab"]
    assert same(heads_in(tmp_path / "a"), heads_in(tmp_path / "b"))
    assert runs[0]["nearest"] is None
    lines = (tmp_path / "a" / "training" / "history.jsonl").read_text().splitlines()
    assert len({json.loads(line)["loss"] for line in lines}) == len(lines) == 6


def test_fewer_images_are_drawn_by_the_seed(folder, tmp_path):
    result = probe(plan_of(folder, most=10, epochs=2), tmp_path)
    assert result["data"]["train"] == 10


def test_the_sum_of_losses_keeps_heads_apart():
    arms = [arm_of("average"), arm_of("ep:queries=2")]
    heads = Heads(arms, [arm.head(8, 3, 4, seed=0) for arm in arms], leading=0)
    tokens, labels = torch.randn(6, 4, 8), torch.randint(3, (6,))
    losses(heads, tokens, labels).backward()
    for arm, head in zip(arms, heads.heads, strict=True):
        alone = arm.head(8, 3, 4, seed=0)
        torch.nn.functional.cross_entropy(alone(tokens), labels).backward()
        for a, b in zip(alone.parameters(), head.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)


def test_grey_images_are_repeated_and_colours_are_not_made_grey():
    grey = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    assert scaled(grey, 3, "unit")[0, :, 0, 0].tolist() == pytest.approx([0.2] * 3)
    assert scaled(grey, 3, "imagenet")[0, 0, 0, 0] == pytest.approx((0.2 - 0.485) / 0.229)
    with pytest.raises(ValueError, match="takes 1 channels, images have 3"):
        scaled(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), 1, "unit")
    with pytest.raises(ValueError, match="imagenet scaling is of 3 channels"):
        scaled(grey, 1, "imagenet")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pools": ("max",)}, "unknown pool 'max'"),
        ({"pools": ("ep", "ep")}, "pools must differ"),
        ({"pools": ()}, "at least one pool"),
        ({"pools": ("ep:8",)}, "name=value, such as ep:queries=8, got '8'"),
        ({"pools": ("ep:keep=some",)}, "keep must be one of patches, all"),
        ({"optimiser": "sgd"}, "optimiser must be one of lars, adamw"),
        ({"precision": "fp8"}, "precision must be one of no, bf16"),
        ({"scaling": "odd"}, "scaling must be one of imagenet"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
    ],
)
def test_plans_without_sense_are_refused(folder, changes, match):
    with pytest.raises(ValueError, match=match):
        plan_of(folder, **changes)


def test_data_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="there is no folder 'nowhere'"):
        ProbePlan("vit_micro", "nowhere")
    with pytest.raises(ValueError, match="augment is for folders of images"):
        ProbePlan("vit_micro", "fashion-mnist", augment=True)


def test_pools_that_do_not_fit_are_refused_before_any_work(folder, tmp_path):
    with pytest.raises(ValueError, match="queries 5 must divide the 16 channels"):
        probe(plan_of(folder, pools=("ep:queries=5",)), tmp_path)
    assert not list(tmp_path.iterdir())


def command(*words):
    return windeye("probe", *words)


def test_the_command_prints_a_table_and_the_numbers_as_json(folder, tmp_path):
    words = (
        "vit_micro", folder, "--out", tmp_path, "--side", 16, "--epochs", 3, "--warm-up", 1, "--batch", 8,
        "--pool", "average", "--pool", "ep:queries=4", "--optimiser", "adamw",
        "--set", "dim=16", "--set", "depth=1", "--set", "heads=2", "--set", "patch=8",
    )  # fmt: skip
    first = command(*words)
    assert first.exit_code == 0, first.output
    for part in ("ep:queries=4", "20 nearest", "parameters", "probe.json", "the encoder is random"):
        assert part in first.output
    again = command(*words, "--json")
    assert json.loads(again.stdout[again.stdout.index("{") :])["pools"].keys() == {"average", "ep:queries=4"}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("vit_microo",), "did you mean vit_micro"),
        (("vit_micro", "--set", "patch"), "--set must be name=value"),
        (("vit_micro", "--weights", "nothing.pth"), "nothing.pth"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, words, match):
    model, *rest = words
    done = command(model, folder, "--out", tmp_path / "run", *rest)
    assert done.exit_code == 2
    assert match in " ".join(done.output.split())


def test_a_mistyped_folder_starts_no_run(tmp_path):
    done = command("vit_micro", "picturse", "--out", tmp_path / "run")
    assert done.exit_code == 2
    told = "data must be one of fashion-mnist, made-scenes, or a folder with train/CLASS/* and val/CLASS/*"
    assert f"{told}; there is no folder 'picturse'" in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()


def test_a_folder_without_pictures_is_no_data(tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("vit_micro", tmp_path / "empty", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "empty" in done.output
    assert not (tmp_path / "run").exists()
