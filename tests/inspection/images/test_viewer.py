"""The page holds the weights that were measured, and pictures are of the photograph's proportions."""

import base64
import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")

from windeye.inspection.images import look
from windeye.inspection.images.overlay import MOST_PIXELS, overlay, palette, thumbnail
from windeye.inspection.images.photo import Photo
from windeye.inspection.images.placement import Placement
from windeye.inspection.images.viewer import viewer
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, MergeSpec, StageSpec
from windeye.nn.mixers import HiLoSpec, NeighborhoodSpec, VSASpec


def test_the_page_holds_every_weight():
    stages = (
        StageSpec(8, 2, ConvSpec(), (NeighborhoodSpec(3), VSASpec(3))),
        StageSpec(16, 4, MergeSpec(), (HiLoSpec(2, 0.5),)),
    )
    model = HierarchicalBackbone(BackboneConfig(stages, 3, 4))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    seen = look(model, pixels, [(10, 80), (30, 0)], size=(37, 50))
    html = viewer(seen)
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html).group(1))
    assert told["size"] == [60, 90]
    assert told["chosen"] == 1
    assert [query["name"] for query in told["queries"]] == ["10,80", "30,0"]
    assert told["queries"][0]["at"] == pytest.approx([10.5 / 60, 80.5 / 90])
    for layer, plain in zip(seen.layers, told["layers"], strict=True):
        codes = np.frombuffer(base64.b64decode(plain["data"]), "<u2").reshape(layer.maps.shape)
        most = np.array(plain["most"])
        np.testing.assert_allclose(codes / 65535 * most[..., None, None], layer.maps, atol=2 * most.max() / 65535)
        for query in range(2):
            for head in range(layer.maps.shape[1]):
                assert np.array_equal(codes[query, head] > 0, layer.visible(query, [head]))
        assert plain["rows"][-1] == plain["columns"][-1] == 1
    assert told["layers"][2]["kinds"] == ["high", "high", "low", "low"]
    assert np.array(told["layers"][1]["boxes"]).shape == (2, 2, 4)


@pytest.mark.parametrize("size", [(1, 1), (640, 640), (641, 3), (999, 1500), (3, 2000)])
def test_thumbnails_keep_proportions_and_means(size):
    pixels = np.random.default_rng(0).random((*size, 3))
    small = thumbnail(Photo("", pixels))
    assert max(small.shape) <= MOST_PIXELS
    step = -(-max(size) // MOST_PIXELS)
    assert small.shape == (-(-size[0] // step), -(-size[1] // step), 3)
    np.testing.assert_allclose(small[0, 0], pixels[:step, :step].mean(axis=(0, 1)))


def test_colours_lie_on_the_tokens_pixels():
    photo = Photo("", np.full((9, 14, 3), 0.5))
    place = Placement.of((3, 4), 4, (9, 14), (9, 14))
    weights = np.zeros((3, 4))
    weights[1, 3], weights[2, 0] = 1.0, 0.25
    shown = overlay(photo, place, weights)
    dim = np.full(3, 0.45 * 0.5)
    for y in range(9):
        for x in range(14):
            share = weights[y // 4, x // 4]
            colour = palette()[round(share * 255)] / 255
            np.testing.assert_allclose(shown[y, x], (1 - share**0.5) * dim + share**0.5 * colour * 0.65, atol=1e-6)


def test_a_class_token_is_a_query_without_a_place(tmp_path):
    from windeye.models.vision import VisionTransformer, ViTConfig

    torch.manual_seed(0)
    seen = look(VisionTransformer(ViTConfig(16, 1, 2, patch=8, img_size=(32, 32))), "astronaut", ["class", (0, 0)])
    assert '"at": null' in viewer(seen)
    assert "queries at class token, 0,0" in seen.save(tmp_path).read_text()
