"""Vision transformers, ours and those of transformers: rows of the maps that they themselves give."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")

from windeye.inspection.images import capture, look
from windeye.models.vision import VisionTransformer, ViTConfig

PHOTO = np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("class_token", [True, False])
def test_our_vision_transformer(class_token):
    model = VisionTransformer(ViTConfig(16, 2, 2, patch=8, class_token=class_token, img_size=(32, 32))).double()
    x = torch.randn(3, 33, 50, dtype=torch.float64)
    queries = [(0, 0), (32, 49), "class"][: 2 + class_token]
    seen = look(model, x, queries)
    dense = []
    capture(model, x[None], lambda _, mixer, x: dense.append(mixer.to_dense(x)[0].numpy()))
    for layer, matrix in zip(seen.layers, dense, strict=True):
        assert layer.place.grid == (5, 7)
        at = [int(class_token), class_token + 34, 0]
        for query in range(len(queries)):
            row = matrix[:, at[query]]
            np.testing.assert_allclose(layer.maps[query].reshape(2, -1), row[:, int(class_token) :], atol=1e-12)
            if class_token:
                np.testing.assert_allclose(layer.beside[query], row[:, 0], atol=1e-12)
    assert np.abs(seen.here.elsewhere).max() < 1e-12
    assert [str(layer.layer) for layer in seen.layers] == ["0.0", "0.1"]
    assert seen.here.tokens == ((0, 0), (4, 6), None)[: len(queries)]
    if not class_token:
        with pytest.raises(ValueError, match="no class token"):
            look(model, x, "class")


def of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    small = {"image_size": 32, "patch_size": 8}
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, **small))
    if kind == "deit":
        return transformers.DeiTModel(transformers.DeiTConfig(**SIZES, **small))
    if kind == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, **small))
    if kind == "dinov2_with_registers":
        return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**SIZES, **small))
    if kind == "dinov3":
        return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SIZES, **small, num_register_tokens=2))
    if kind == "beit":
        return transformers.BeitModel(transformers.BeitConfig(**SIZES, **small, use_relative_position_bias=True))
    if kind == "siglip":
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES, **small))
    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config={**SIZES, **small}, projection_dim=8)
    return transformers.CLIPModel(config)


BEFORE = {
    "vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 5, "dinov3": 3, "beit": 1, "siglip": 0, "clip": 1,
}  # fmt: skip
"""Tokens in front of the patches."""


@pytest.mark.parametrize(("kind", "before"), BEFORE.items())
def test_models_of_transformers(kind, before):
    model = of_transformers(kind).eval()
    x = torch.randn(3, 32, 32)
    queries = ["class", (0, 31), (20, 10)][before == 0 :]
    seen = look(model, x, queries)
    half = getattr(model, "vision_model", model)
    assert half.config._attn_implementation == "sdpa"  # as it was
    half.set_attn_implementation("eager")
    with torch.no_grad():
        maps = half(x[None], output_attentions=True).attentions
    assert len(maps) == len(seen.layers) == 2
    for layer, weights in zip(seen.layers, maps, strict=True):
        at = [0, before + 3, before + 2 * 4 + 1][before == 0 :]
        rows = weights[0, :, at].transpose(0, 1).numpy()
        np.testing.assert_allclose(layer.maps.reshape(len(queries), 2, -1), rows[..., before:], atol=2e-6)
        np.testing.assert_allclose(layer.elsewhere, 0, atol=2e-6)
    if before == 0:
        with pytest.raises(ValueError, match="no class token"):
            look(model, x, "class")


def test_masked_autoencoders_see_the_whole_image_in_order():
    transformers = pytest.importorskip("transformers")
    sizes = SIZES | {"image_size": 32, "patch_size": 8}
    masked = transformers.ViTMAEModel(transformers.ViTMAEConfig(**sizes)).eval()
    plain = transformers.ViTModel(transformers.ViTConfig(**sizes), add_pooling_layer=False).eval()
    plain.load_state_dict(masked.state_dict())
    x = torch.randn(3, 32, 32)
    seen, expected = (look(model, x, [(0, 31), "class"]) for model in (masked, plain))
    for ours, theirs in zip(seen.layers, expected.layers, strict=True):
        np.testing.assert_allclose(ours.maps, theirs.maps, atol=1e-5)
    assert masked.config.mask_ratio == 0.75


def test_other_sizes_are_whole_patches_or_refused():
    seen = look(of_transformers("vit"), PHOTO, (69, 100), size=(50, 71))
    assert seen.seen == (48, 72)
    assert seen.here.place.grid == (6, 9)
    assert seen.here.tokens == ((5, 8),)
    assert seen.here.place.box((5, 8))[2:] == pytest.approx((101, 70))


def test_what_is_no_vision_transformer_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=20, num_key_value_heads=2, **SIZES)
    with pytest.raises(TypeError, match="no single size of patches"):
        look(transformers.LlamaModel(config), PHOTO)
