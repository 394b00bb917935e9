"""Files of every kind become the same upright red, green and blue."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")

from PIL import Image

from windeye.inspection.images.photo import as_input, model_size, read_photo, shown

GRADIENT = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7) * 7


def saved(folder, image, name="image.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def test_grey_of_8_and_16_bits(tmp_path):
    grey = read_photo(saved(tmp_path, Image.fromarray(GRADIENT)))
    assert grey.name == "image.png"
    assert grey.size == (5, 7)
    np.testing.assert_allclose(grey.pixels, np.repeat(GRADIENT[..., None], 3, axis=2) / 255, atol=1e-6)
    fine = read_photo(saved(tmp_path, Image.fromarray(GRADIENT.astype(np.uint16) * 257), "fine.png"))
    np.testing.assert_allclose(fine.pixels, grey.pixels, atol=1e-6)
    fine = read_photo(saved(tmp_path, Image.fromarray(GRADIENT.astype(np.uint16) * 257), "fine.tif"))
    np.testing.assert_allclose(fine.pixels, grey.pixels, atol=1e-6)


def test_what_is_transparent_is_white(tmp_path):
    clear = np.zeros((2, 3, 4), dtype=np.uint8)
    clear[..., 0] = 255
    clear[0, :, 3] = 255
    half = clear.copy()
    half[1, 0, 3] = 51
    photo = read_photo(saved(tmp_path, Image.fromarray(half)))
    np.testing.assert_allclose(photo.pixels[0], np.tile([1, 0, 0], (3, 1)))
    np.testing.assert_allclose(photo.pixels[1, 1], [1, 1, 1])
    np.testing.assert_allclose(photo.pixels[1, 0], [1, 0.8, 0.8], atol=1e-6)
    palette = Image.fromarray(GRADIENT).convert("P")
    transparent = saved(tmp_path, palette, "palette.png", transparency=0)
    assert read_photo(transparent).pixels[0, 0].tolist() == [1, 1, 1]


def test_the_rotation_that_a_camera_noted_is_carried_out(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    photo = read_photo(saved(tmp_path, Image.fromarray(GRADIENT), exif=exif))
    assert photo.size == (7, 5)
    np.testing.assert_allclose(photo.pixels[..., 0], np.rot90(GRADIENT, -1) / 255, atol=1e-6)


@pytest.mark.parametrize(("mode", "name"), [("1", "a.png"), ("CMYK", "a.jpg"), ("LA", "a.png"), ("RGB", "a.gif"), ("RGB", "a.webp")])  # fmt: skip  # noqa: E501
def test_other_modes_and_formats_are_read(tmp_path, mode, name):
    pixels = read_photo(saved(tmp_path, Image.fromarray(GRADIENT).convert(mode), name)).pixels
    assert pixels.shape == (5, 7, 3)
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_arrays_and_pillow_images_are_photographs():
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    for source in (colours, Image.fromarray(colours), colours / 255):
        np.testing.assert_allclose(read_photo(source).pixels, colours / 255, atol=1e-6)
    assert read_photo(np.ones((3, 4), dtype=bool)).pixels.min() == 1
    assert read_photo(np.full((2, 2, 1), 65535, dtype=np.uint16)).pixels.tolist() == np.ones((2, 2, 3)).tolist()


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:1500])
    for source, told in (
        ("nowhere.png", "there is no image file nowhere.png; photographs at hand are astronaut"),
        (tmp_path, "there is no image file"),
        (tmp_path / "text.jpg", "not an image that Pillow can read"),
        (tmp_path / "half.png", "cannot be read"),
        (np.zeros((2, 2, 2)), r"\[height, width\]"),
        (np.full((2, 2), 3.0), "between 0 and 1"),
        (np.full((2, 2), np.nan), "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=told):
            read_photo(source)
    with pytest.raises(TypeError, match="got int"):
        read_photo(3)


def test_a_model_sees_the_same_number_of_pixels_in_the_same_proportions():
    assert model_size((512, 512), None, (224, 224)) == (224, 224)
    assert model_size((3000, 4000), 384, (224, 224)) == (333, 443)
    assert model_size((7, 4000), None, (224, 224)) == (9, 5355)
    assert model_size((30, 40), (5, 6), (224, 224)) == (5, 6)
    assert model_size((30, 40), "own", (224, 224)) == (30, 40)
    for size in (0, -3, (4, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            model_size((30, 40), size, (224, 224))


def test_colours_are_scaled_as_models_were_trained():
    photo = read_photo(np.full((6, 6, 3), 128, dtype=np.uint8))
    value = 128 / 255
    torch.testing.assert_close(as_input(photo, (3, 2), 3)[0, 0], torch.full((3, 2), (value - 0.485) / 0.229))
    torch.testing.assert_close(as_input(photo, (3, 2), 1), torch.full((1, 1, 3, 2), value))
    torch.testing.assert_close(as_input(photo, (6, 6), 3, "symmetric"), torch.full((1, 3, 6, 6), 2 * value - 1))
    with pytest.raises(ValueError, match="takes 4 channels"):
        as_input(photo, (6, 6), 4)
    with pytest.raises(ValueError, match="imagenet, unit, symmetric"):
        as_input(photo, (6, 6), 3, "zero")


def test_a_tensor_is_shown_stretched():
    x = torch.tensor([[[-1.0, 3.0]]])
    assert shown(x).pixels.tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert shown(torch.zeros(2, 3, 3)).pixels.max() == 0
