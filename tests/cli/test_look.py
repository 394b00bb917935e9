"""`windeye look`: what it prints, what it writes, and what it says of bad input."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")

from PIL import Image

from cli.typed import windeye
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, MergeSpec, StageSpec, save_backbone
from windeye.nn.mixers import BiLevelRoutingSpec, HiLoSpec, VSASpec, WindowSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("look")
    torch.manual_seed(0)
    stages = (
        StageSpec(8, 2, ConvSpec(), (WindowSpec(4), VSASpec(4))),
        StageSpec(16, 2, MergeSpec(), (BiLevelRoutingSpec(4, keep=2), HiLoSpec(2, 0.5), None)),
    )
    save_backbone(HierarchicalBackbone(BackboneConfig(stages, 3, 4, img_size=(64, 64))), found / "mixed.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(found / "photo.png")
    (found / "text.png").write_text("no image")
    return found


def look(folder, *arguments):
    words = [str(folder / word) if str(word).endswith((".png", ".safetensors")) else str(word) for word in arguments]
    return windeye("look", *words)


def test_a_row_a_layer_and_files(folder, tmp_path):
    done = look(
        folder, "mixed.safetensors", "photo.png", "--query", "10,100", "--query", "89,0", "--out", tmp_path / "a"
    )
    assert done.exit_code == 0, done.output
    rows = [line.split()[0] for line in done.output.splitlines()]
    assert [row for row in rows if row[:1].isdigit()] == ["0.0", "0.1", "1.0", "1.1"]
    assert "mixed (mixed.safetensors weights) looks at photo.png, 90 x 120 pixels seen at 55 x 74" in done.output
    assert "query 10,100, 89,0; layer 0.1 in full" in done.output
    assert "random" not in done.output
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {
        "look.html", "look.json", "query.png", "rectangles.png", "heads-0.png", "heads-1.png", "layers.png"
    }  # fmt: skip
    page = (tmp_path / "a" / "look.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "are random" not in page
    with Image.open(tmp_path / "a" / "query.png") as picture:
        assert min(picture.size) > 200


def test_each_kind_of_attention_has_its_pictures(folder, tmp_path):
    for block, expected in (("0", {"routes.png"}), ("1", {"outputs.png", "spectra.svg"})):
        out = tmp_path / "the same"
        done = look(folder, "mixed.safetensors", "photo.png", "--stage", 1, "--block", block, "--out", out)
        assert done.exit_code == 0, done.output
        assert {path.name for path in out.iterdir()} == expected | {
            "look.html", "look.json", "query.png", "heads.png", "layers.png"
        }  # fmt: skip


def test_numbers_as_json(folder, tmp_path):
    done = look(folder, "mixed.safetensors", "photo.png", "--json", "--size", "32x48", "--out", tmp_path, "--stage", -1)
    told = json.loads(done.stdout)
    assert (told["size"], told["seen"], told["queries"], told["chosen"]) == ([90, 120], [32, 48], [[45, 60]], "1.1")
    window, moved, routed, halves = told["layers"]
    assert np.array(window["weights"]).shape == (1, 2, 8, 12)
    assert np.array(moved["rectangles"]).shape == (1, 2, 4)
    assert np.array(routed["routes"]["chosen"]).shape == (4 * 3, 2)
    assert list(halves["spectra"]) == ["input", "high", "low"]
    assert window["rows"][-1] == 90
    assert json.loads((tmp_path / "look.json").read_text()) == told


def test_random_weights_are_said_loudly(tmp_path):
    done = windeye("look", "vit_micro", "astronaut", "--query", "class", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "weights of this model are random" in done.stderr
    assert "vit_micro (random weights)" in done.stdout
    assert "are random" in (tmp_path / "look.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["swin_tt", "photo.png"], "there is no vision model 'swin_tt'; did you mean swin_t"),
        (["mixed.safetensors", "nowhere.png"], "there is no image file"),
        (["mixed.safetensors", "text.png"], "is not an image that Pillow can read"),
        (["mixed.safetensors", "photo.png", "--query", "90,0"], "its rows (first number) are 0 to 89"),
        (["mixed.safetensors", "photo.png", "--query", "a,b"], "--query must be integers joined by commas"),
        (["mixed.safetensors", "photo.png", "--query", "1,2,3"], "query must be a row and a column"),
        (["mixed.safetensors", "photo.png", "--query", "class"], "the model has no class token"),
        (["mixed.safetensors", "photo.png", "--stage", 2], "there is no stage 2: mixed has stages 0 to 1"),
        (["mixed.safetensors", "photo.png", "--stage", 1, "--block", 2], "there is no attention in block 2 of stage 1"),
        (["mixed.safetensors", "photo.png", "--block", "last"], "--block must be a number from 0, or entry"),
        (["mixed.safetensors", "photo.png", "--size", "big"], "--size must be integers joined by x"),
        (["mixed.safetensors", "photo.png", "--size", "1x2x3"], "--size must be a side such as 384"),
        (["mixed.safetensors", "photo.png", "--scaling", "none"], "scaling must be one of imagenet, unit, symmetric"),
        (["mixed.safetensors", "photo.png", "--weights", "photo.png"], "has weights of its own"),
        (["swin_t", "photo.png", "--weights", "mixed.safetensors"], "does not fit swin_t"),
        (["swin_t", "photo.png", "--weights", "text.png"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, arguments, said):
    done = look(folder, *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
