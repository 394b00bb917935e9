"""What the pictures of the page on looking are made of."""

import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")
pytest.importorskip("accelerate", reason="accelerate is missing: pip install 'windeye[train]'")

from windeye.bench import looked


def test_crops_are_where_and_as_large_as_they_say():
    crops = looked.Crops()
    at = (torch.arange(512) + 0.5) / 256 - 1
    crops.photo = torch.stack([at[:, None].expand(512, 512), at.expand(512, 512), torch.ones(512, 512)])[None]
    images, places = crops(3)
    assert images.shape == (looked.BATCH, 3, looked.SIDE, looked.SIDE)
    brightness = images[:, 2].mean(dim=(1, 2))
    down, across = (images[:, channel].mean(dim=(1, 2)) / brightness for channel in (0, 1))
    torch.testing.assert_close(across, places[:, 0], atol=5e-3, rtol=0)
    torch.testing.assert_close(down, places[:, 1], atol=5e-3, rtol=0)
    spread = (images[:, 1].amax(dim=(1, 2)) - images[:, 1].amin(dim=(1, 2))) / brightness
    low, high = looked.SHARES
    side = low + (places[:, 2] + 1) / 2 * (high - low)
    torch.testing.assert_close(spread * looked.SIDE / (looked.SIDE - 1) / 2, side, atol=5e-3, rtol=0)
    assert torch.equal(crops(3)[0], images)
    assert not torch.equal(crops(4)[0], images)


def test_every_picture_of_the_page_is_made(tmp_path):
    (tmp_path / looked.IMAGES).mkdir(parents=True)
    looked.write(tmp_path, tmp_path / "places.safetensors", steps=2)
    names = {path.name for path in (tmp_path / looked.IMAGES).iterdir()}
    assert names == {
        "look-query.png", "look-rectangles.png", "look-routes.png", "look-outputs.png", "look-spectra.svg",
        "look-layers.png", "look-dinat.png",
    }  # fmt: skip
    page = (looked.Path(__file__).parents[2] / "docs" / "look.md").read_text()
    assert all(f"images/{name}" in page for name in names)
