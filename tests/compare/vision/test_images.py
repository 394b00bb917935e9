"""Pictures: scenes whose answer is known, folders of any files, and errors that name the file."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from windeye.compare.vision.folder import read_folder
from windeye.compare.vision.images import Images, Labelled, images_of, scaled
from windeye.compare.vision.scenes import SHAPES, made_scenes


def test_scenes_are_the_same_each_time_and_hold_every_class():
    first, second = made_scenes(32, 300, 100), made_scenes(32, 300, 100)
    for (images, labels), (again, named) in zip(first[1:], second[1:], strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, named)
    assert first[0] == SHAPES
    assert set(first[1][1].tolist()) == set(range(len(SHAPES)))
    assert not torch.equal(first[1][0][:100], first[2][0])


def test_the_class_is_the_shape_that_the_sign_points_to():
    """Shape and sign are found by comparing with drawings of their own: no number of the scene is asked for."""
    from windeye.compare.vision import scenes

    _, (images, labels), _ = made_scenes(64, 40, 1)
    x = images[:, 0].float() / 255
    drawn = torch.stack([_alone(scenes, shape) for shape in range(len(SHAPES))])
    ahead = [_sign(scenes, direction) for direction in scenes.DIRECTIONS]
    right = 0
    for image, label in zip(x, labels.tolist(), strict=True):
        middle = image[22:42, 22:42]
        way = max(range(len(ahead)), key=lambda i: float(_alike(middle, ahead[i])))
        down, across = scenes.DIRECTIONS[way]
        row, column = round(32 + down * 0.6 * 32), round(32 + across * 0.6 * 32)
        patch = image[max(0, row - 17) : row + 17, max(0, column - 17) : column + 17]
        found = max(range(len(SHAPES)), key=lambda i: float(_best(patch, drawn[i])))
        right += found == label
    assert right > 36


def _alone(scenes, shape):
    rows, columns = scenes._around(20, torch.zeros(1, 2), torch.tensor([0.8]))
    return scenes._shapes(rows, columns)[shape, 0].float()


def _sign(scenes, direction):
    drawn = scenes._sign(64, torch.tensor([direction], dtype=torch.float), torch.Generator().manual_seed(0))
    return drawn[0, 22:42, 22:42].float()


def _alike(one, other):
    one, other = (t - t.mean() for t in (one, other))
    return (one * other).sum() / (one.norm() * other.norm())


def _best(patch, drawing):
    """Best correlation over places and sizes."""
    scores = []
    for size in (23, 26, 29):
        small = torch.nn.functional.interpolate(drawing[None, None], (size, size), mode="area")[0, 0]
        if min(patch.shape) < size:
            continue
        windows = patch.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size, size)
        scores.append(max(_alike(window, small) for window in windows))
    return max(scores)


def test_batches_are_the_same_for_every_arm_of_a_seed_and_see_every_picture_once():
    numbered = Labelled(torch.arange(10).byte().reshape(10, 1, 1, 1), torch.arange(10))
    images = Images("numbers", tuple("0123456789"), numbered, numbered)
    one, other = images.batches(4, seed=1), images.batches(4, seed=1)
    seen = [one(step) for step in range(3)]
    assert all(torch.equal(x, other(step)[0]) for step, (x, _) in enumerate(seen))
    assert sorted(torch.cat([labels for _, labels in seen]).tolist()) == list(range(10))
    for x, labels in seen:
        assert torch.equal((255 * x[:, 0, 0, 0]).round().long(), labels)
    assert not torch.equal(images.batches(10, seed=2)(0)[1], images.batches(10, seed=1)(0)[1])


def test_colours_are_scaled_as_look_scales_them():
    from windeye.inspection.images.photo import Photo, as_input

    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    ours = scaled(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    torch.testing.assert_close(ours, as_input(Photo("x", pixels.astype(np.float32) / 255), (6, 5), 3))


@pytest.fixture
def pictures(tmp_path):
    """Red and blue pictures of several sizes and kinds."""
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for number, size in enumerate([(40, 30), (17, 50), (32, 32), (9, 9), (64, 20), (33, 31)]):
            Image.new("RGB", size, colour).save(tmp_path / name / f"{number}.{'png' if number % 2 else 'bmp'}")
    return tmp_path


def test_a_folder_per_class_is_divided_by_names_alone(pictures):
    classes, (train, labels), (test, held_out) = read_folder(pictures, 16)
    assert classes == ("blue", "red")
    assert train.shape == (10, 3, 16, 16)
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert held_out.tolist() == [0, 1]
    for images, named in ((train, labels), (test, held_out)):
        assert torch.equal(images.flatten(2).float().mean(2).argmax(1), 2 - 2 * named)
        assert set(images.unique().tolist()) == {0, 255}
    again = read_folder(pictures, 16)
    assert torch.equal(again[1][0], train)


def test_train_and_val_folders_are_kept_apart(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    shutil.copytree(pictures, root / "train")
    shutil.copytree(pictures, root / "valid")
    (root / "valid" / "red" / "0.bmp").unlink()
    (root / "valid" / "red" / ".hidden").write_text("no image")
    _, (train, _), (test, labels) = read_folder(root, 16)
    assert (len(train), len(test)) == (12, 11)
    assert labels.tolist() == [0] * 6 + [1] * 5
    assert images_of(str(root), 16).facts() == {"name": root.name, "classes": 2, "train": 12, "test": 11}


def test_the_middle_is_cut_out_upright(tmp_path):
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, 10:30] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "wide.png")
        image = Image.fromarray(pixels.transpose(1, 0, 2))
        exif = image.getexif()
        exif[0x0112] = 6  # stored on its side
        image.save(tmp_path / name / "turned.png", exif=exif)
    _, (train, _), (test, _) = read_folder(tmp_path, 20)
    assert (torch.cat((train, test)) == 255).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "red" / "notes.txt").write_text("no image"), "notes.txt is not an image that Pillow can read"),
        (lambda p: (p / "red" / "6.png").write_bytes((p / "red" / "1.png").read_bytes()[:60]), "6.png is an image "),
        (lambda p: shutil.rmtree(p / "red"), "a folder of images for each of at least two classes, got 1"),
        (lambda p: (p / "green").mkdir(), "green holds no images"),
        (lambda p: [f.unlink() for f in (p / "red").glob("[1-9]*")], "class 'red' must have at least two images"),
        (lambda p: shutil.copytree(p / "red", p / "train" / "red"), "must have a folder val or valid"),
        (
            lambda p: [shutil.copytree(p / "red", p / part / name) for part in ("train", "val")
                       for name in ("red", f"only in {part}")],
            "must have the same classes; only one of them has 'only in (train|val)'",
        ),
    ],
)  # fmt: skip
def test_bad_folders_are_told_by_name(pictures, spoil, message):
    spoil(pictures)
    with pytest.raises(ValueError, match=message):
        read_folder(pictures, 16)
