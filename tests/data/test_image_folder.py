"""Folders of images: what is found, and the squares that are cut out."""

import numpy as np
import pytest
import torch

from windeye.data.images import ImageFolder, middle, random_part
from windeye.data.images.opening import eight_bits, opened

Image = pytest.importorskip("PIL.Image")


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


def ramp(height, width):
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / max(1, width - 1), 255 * y / max(1, height - 1), np.zeros((height, width))], axis=-1)


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "ant"):
            for number in range(2 if part == "train" else 1):
                write(tmp_path / part / name / f"{number}.png", ramp(20, 30))
    (tmp_path / "train" / "cat" / ".hidden").write_text("x")
    return tmp_path


def test_classes_are_folders_in_order(folder):
    found = ImageFolder.of(folder)
    assert found.classes == ("ant", "cat")
    assert [path.parent.name for path in found.train.paths] == ["ant", "ant", "cat", "cat"]
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert len(found.test) == 2


def test_what_is_wrong_is_named(folder, tmp_path):
    (folder / "val" / "ant" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"val/ant holds no images"):
        ImageFolder.of(folder)
    (folder / "val" / "ant").rmdir()
    with pytest.raises(ValueError, match="only one of them has 'ant'"):
        ImageFolder.of(folder)
    with pytest.raises(ValueError, match="must have a folder train with a folder of images"):
        ImageFolder.of(tmp_path / "val")


def test_the_middle_is_seven_eighths_of_the_shorter_side(tmp_path):
    square = middle(write(tmp_path / "a.png", ramp(64, 96)), 56)
    assert square.shape == (3, 56, 56)
    # Pixels 20 to 76 of 96, and 4 to 60 of 64, one to one.
    assert square[0, 0, [0, -1]].tolist() == pytest.approx([255 * 20 / 95, 255 * 75 / 95], abs=1)
    assert square[1, [0, -1], 0].tolist() == pytest.approx([255 * 4 / 63, 255 * 59 / 63], abs=1)


def test_random_parts_follow_their_generator_and_stay_inside(tmp_path):
    path = write(tmp_path / "a.png", ramp(40, 60))
    first, second = (random_part(path, 16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    parts = torch.stack([random_part(path, 16, torch.Generator().manual_seed(seed)) for seed in range(200)]).float()
    rising = parts[:, 0, 0, -1] > parts[:, 0, 0, 0]
    assert 0.4 < rising.float().mean() < 0.6  # half of them are turned
    spans = (parts[:, 0, 0, -1] - parts[:, 0, 0, 0]).abs() / 255 * (parts[:, 1, -1, 0] - parts[:, 1, 0, 0]) / 255
    assert spans.min() > 0.04
    assert spans.max() > 0.8


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_images_of_every_kind_become_red_green_blue(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(ramp(12, 9).astype(np.uint8)).convert(mode).save(path)
    assert middle(path, 8).shape == (3, 8, 8)


def test_sixteen_bits_are_read_in_full_and_what_is_transparent_becomes_white(tmp_path):
    deep = np.array([[0, 65535], [25700, 51400]], dtype=np.uint16).repeat(8, 0).repeat(8, 1)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = np.asarray(eight_bits(opened(tmp_path / "deep.png")))[::8, ::8, 0]
    assert found.tolist() == [[0, 255], [100, 200]]
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert middle(tmp_path / "clear.png", 8).unique().tolist() == [255]


def test_an_image_of_one_pixel_is_enough(tmp_path):
    path = write(tmp_path / "a.png", [[[9, 9, 9]]])
    assert middle(path, 4).unique().tolist() == random_part(path, 4, torch.Generator()).unique().tolist() == [9]


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png is not an image that Pillow can read"):
        middle(tmp_path / "a.png", 8)


def test_a_folder_without_parts_is_divided_by_the_names_of_its_files(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for name in ("cat", "ant"):
        for number in range(11):
            write(root / name / f"{number}.png", ramp(4, 4))
    found = ImageFolder.at(root)
    assert found.classes == ("ant", "cat")
    assert (len(found.train), len(found.test)) == (18, 4)
    assert not set(found.train.paths) & set(found.test.paths)
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    names = [[path.name for path in found.test.paths if path.parent.name == name] for name in found.classes]
    assert sorted(names[0]) == sorted(names[1])
    assert ImageFolder.at(folder).train.paths == ImageFolder.of(folder).train.paths
    (root / "dog").mkdir()
    write(root / "dog" / "only.png", ramp(4, 4))
    with pytest.raises(ValueError, match="class 'dog' must have at least two images, one of them to test with, got"):
        ImageFolder.divided(root)
    with pytest.raises(ValueError, match="at least two classes, got 0"):
        ImageFolder.divided(root / "dog")
