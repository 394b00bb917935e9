"""BiFormer: the official numbers and files, published sizes and costs."""

import json
from pathlib import Path

import pytest
import torch

from golden import load, same, under
from windeye.models import create, identify
from windeye.models.registry import PRESETS
from windeye.models.vision import BackboneConfig, biformer, cost
from windeye.models.vision.biformer import STL_NCHW_WEIGHTS, STL_WEIGHTS, WEIGHTS

MANIFEST = json.loads((Path(__file__).parents[2] / "golden" / "biformer" / "manifest.json").read_text())
PUBLISHED = {
    "biformer_tiny": ("biformer_t", {}),
    "biformer_small": ("biformer_s", {}),
    "biformer_base": ("biformer_b", {}),
    "biformer_stl": ("biformer_stl", {}),
    "biformer_stl_nchw": ("biformer_stl_nchw", {}),
    "biformer_small_dense": ("biformer_s", {"dense": True}),
    "biformer_base_dense": ("biformer_b", {"dense": True}),
}


def golden_model(case):
    meta, numbers = load("biformer", case)
    stl = "stl" in case
    model = biformer(
        meta["dims"], meta["depths"], regions=meta["regions_per_side"], head_dim=meta["head_dim"],
        keep=[None if keep < 0 else keep for keep in meta["topks"]], ratio=meta["mlp_ratio"],
        layout="patches" if stl else "overlapping", num_classes=meta.get("classes", 5),
        layer_scale=1.0 if meta.get("settings", {}).get("layer_scale") else None,
    ).double().eval()  # fmt: skip
    weights = STL_WEIGHTS if stl else WEIGHTS
    report = weights.load(model, under("weight.", numbers))
    assert {*report.loaded} == under("weight.", numbers).keys()
    return model, weights, numbers


every_case = pytest.mark.parametrize("case", ["biformer_tiny", "biformer_tiny_autopad_layerscale", "biformer_stl_tiny"])


@every_case
def test_logits_features_and_gradients_are_the_official_ones(case):
    model, _, numbers = golden_model(case)
    x = numbers["input.x"].requires_grad_()
    logits = model(x)
    same(logits, numbers["output.logits"])
    (logits * numbers["cotangent.logits"]).sum().backward()
    same(x.grad, numbers["grad_input.x"])
    for stage, found in enumerate(model.features(x.detach())):
        same(found, numbers[f"output.stage{stage}"])
    low = model.float()(x.detach().float())
    assert (low - numbers["output.logits"]).abs().max() <= 1e-5 * numbers["output.logits"].abs().max()


@every_case
def test_files_come_back_bit_by_bit(case):
    model, weights, numbers = golden_model(case)
    exported = weights.export(model)
    for name, tensor in under("weight.", numbers).items():
        assert torch.equal(exported.pop(name), tensor), name
    assert not exported


@pytest.mark.parametrize("official", PUBLISHED)
def test_every_published_file_is_known_by_its_exact_names_and_shapes(official):
    entry, (name, config) = MANIFEST[official], PUBLISHED[official]
    weights = PRESETS[name].weights
    with torch.device("meta"):
        model = create(name, **config)
    assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
    shapes = weights.shapes(model)
    assert {n: list(s) for n, s in shapes.items()} == entry["state_dict"]
    assert len(shapes) == entry["tensors"]
    identity = identify({n: torch.empty(s, device="meta") for n, s in shapes.items()})
    assert identity.names == (name,)
    with torch.device("meta"):
        assert weights.shapes(create(name, **identity.settings)) == shapes


def test_both_layouts_of_linear_layers_are_one_model():
    """On maps that divide, and with the convolution of the last stage on the same tensor."""
    settings = {"dim": 16, "depths": (1, 1, 1, 1), "regions": 2, "keep": (1, 2, 4, None), "head_dim": 8}
    settings |= {"layout": "patches", "num_classes": 3, "local_on": "values"}
    one = biformer(**settings).double().eval()
    two = biformer(**settings, padding="projected").double().eval()
    official = STL_NCHW_WEIGHTS.export(one)
    assert official["stages.0.blocks.0.attn.qkv_linear.weight"].shape == (48, 16, 1, 1)
    assert official["stages.3.blocks.0.attn.proj.weight"].shape == (128, 128, 1, 1)
    STL_NCHW_WEIGHTS.load(two, official)
    x = torch.randn(1, 3, 64, 128, dtype=torch.float64)
    torch.testing.assert_close(two(x), one(x))
    again = STL_NCHW_WEIGHTS.export(two)
    assert all(torch.equal(again[name], official[name]) for name in official)


@pytest.mark.parametrize(
    ("name", "billions"), [("biformer_t", 2.2), ("biformer_s", 4.5), ("biformer_b", 9.8), ("biformer_stl", 4.6)]
)
def test_costs_are_the_published_ones(name, billions):
    with torch.device("meta"):
        model = create(name)
    assert cost(model).multiply_adds / 1e9 == pytest.approx(billions, rel=0.015, abs=0.05)


def test_every_query_of_the_routed_stages_attends_to_64_tokens():
    """Spec: 7 regions a side and 1, 4, 16 kept ones on maps of 56, 28 and 14 tokens."""
    with torch.device("meta"):
        small, large = create("biformer_t", depths=(1, 1, 1, 1)), create("biformer_t", depths=(2, 2, 2, 1))
    tokens = [56**2 * 2, 28**2 * 4, 14**2 * 8]
    assert cost(large).pairs - cost(small).pairs == 64 * sum(tokens)
    assert cost(large, (448, 448)).pairs - cost(small, (448, 448)).pairs == 256 * 4 * sum(tokens)


def test_backbones_of_detectors_take_any_size():
    model = biformer(8, (1, 1, 1, 1), regions=4, keep=(1, 2, 4, None), head_dim=8, dense=True).eval()
    maps = model.features(torch.randn(1, 3, 100, 134))
    assert [tuple(m.shape) for m in maps] == [(1, 8, 25, 34), (1, 16, 13, 17), (1, 32, 7, 9), (1, 64, 4, 5)]
    assert [norm.eps for norm in model.feature_norms.values()] == [1e-6] * 4
    assert BackboneConfig.from_dict(model.config.to_dict()) == model.config
    with pytest.raises(ValueError, match="layout must be one of overlapping, patches"):
        biformer(8, (1,), layout="swin")
