"""LITv2: deformable downsampling, the official numbers and files."""

import hashlib
import json
from itertools import product
from math import floor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from golden import load, under
from windeye.models import create, identify
from windeye.models.vision.cost import cost
from windeye.models.vision.deformable import DeformableMerge
from windeye.models.vision.litv2 import WEIGHTS, litv2

EXACT = {"rtol": 1e-10, "atol": 1e-10}
MANIFEST = json.loads((Path(__file__).parents[2] / "golden" / "hilo" / "manifest.json").read_text())


def merge(in_dim=6, dim=12, **options):
    return DeformableMerge(in_dim, dim, **options).double().eval()


def test_without_offsets_merging_is_a_plain_convolution():
    layer, x = merge(), torch.randn(2, 6, 8, 6, dtype=torch.float64)
    plain = F.gelu(layer.norm(layer.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
    torch.testing.assert_close(layer(x), plain, **EXACT)


def test_whole_offsets_choose_other_pixels_down_first():
    layer, x = merge(), torch.randn(1, 4, 6, 6, dtype=torch.float64)
    shifts = [(1, 0), (0, -1), (-1, 2), (0, 0)]
    layer.offset.bias.data = torch.tensor(shifts, dtype=torch.float64).flatten()
    moved = layer.moved(x)
    for y, z in product(range(4), range(6)):
        down, right = shifts[y % 2 * 2 + z % 2]
        inside = 0 <= y + down < 4 and 0 <= z + right < 6
        expected = x[0, y + down, z + right] if inside else torch.zeros(6, dtype=torch.float64)
        torch.testing.assert_close(moved[0, y, z], expected, **EXACT)


@pytest.mark.parametrize(("size", "drop_rim"), [((6, 4), False), ((5, 7), True), ((5, 7), False), ((1, 1), False)])
def test_merging_weighs_the_four_pixels_around_each_place(size, drop_rim):
    """The sampling rule of the official operator: corners outside of the map are zero, also beside a dropped rim."""
    layer, x = merge(drop_rim=drop_rim), torch.randn(2, *size, 6, dtype=torch.float64)
    for parameter in layer.offset.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    height, width = size
    rows, columns = (n // 2 if drop_rim else -(-n // 2) for n in size)
    whole = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    offset = layer.offset(whole.permute(0, 3, 1, 2))
    out = torch.zeros(2, 12, rows, columns, dtype=torch.float64)
    for b, i, j, tap in product(range(2), range(rows), range(columns), range(4)):
        down, right = offset[b, 2 * tap : 2 * tap + 2, i, j].tolist()
        y, z = 2 * i + tap // 2 + down, 2 * j + tap % 2 + right
        value = torch.zeros(6, dtype=torch.float64)
        for r, c in product((floor(y), floor(y) + 1), (floor(z), floor(z) + 1)):
            if 0 <= r < height and 0 <= c < width:
                value += (1 - abs(y - r)) * (1 - abs(z - c)) * x[b, r, c]
        out[b, :, i, j] += layer.conv.weight[:, :, tap // 2, tap % 2] @ value
    out = (out + layer.conv.bias[:, None, None]).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), F.gelu(layer.norm(out)), **EXACT)


def test_gradients_reach_the_offsets():
    layer, x = merge(3, 4), torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(layer.offset.weight, std=0.3)
    layer.offset.bias.data.uniform_(0.2, 0.4)
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.offset.parameters())


def test_places_are_exact_in_bfloat16():
    layer, x = merge(), torch.randn(1, 112, 112, 6)
    torch.testing.assert_close(layer.bfloat16().moved(x.bfloat16()), x.bfloat16(), rtol=1e-2, atol=1e-3)


def test_a_map_that_is_all_rim_is_refused():
    with pytest.raises(ValueError, match="a map of 1 x 4 has no cell of 2 x 2 pixels"):
        merge(drop_rim=True)(torch.zeros(1, 1, 4, 6, dtype=torch.float64))


def test_the_official_merging():
    meta, numbers = load("hilo", "dtm_6x10")
    layer = merge(meta["dim"], meta["out"])
    parts = {"conv": "dconv", "offset": "dconv.conv_offset", "norm": "norm_layer"}
    weights = under("weight.", numbers)
    layer.load_state_dict({
        name: weights[f"{parts[name.split('.')[0]]}.{name.split('.')[1]}"] for name in layer.state_dict()
    })  # fmt: skip
    x = numbers["input.x"].requires_grad_()
    out = layer(x.unflatten(1, (meta["H"], meta["W"]))).flatten(1, 2)
    torch.testing.assert_close(out, numbers["output.out"], **EXACT)
    (out * numbers["cotangent.out"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_input.x"], **EXACT)
    for name, parameter in layer.named_parameters():
        part, kind = name.split(".")
        torch.testing.assert_close(parameter.grad, numbers[f"grad_weight.{parts[part]}.{kind}"], **EXACT)


def golden_model(case):
    meta, numbers = load("hilo", case)
    model = litv2(
        meta["embed_dim"], meta["depths"], meta["heads"], windows=[side or None for side in meta["local_ws"]],
        alpha=meta["alpha"], dense="classes" not in meta, num_classes=meta.get("classes", 0),
    ).double().eval()  # fmt: skip
    report = WEIGHTS.load(model, under("weight.", numbers))
    assert {*report.loaded} == under("weight.", numbers).keys()
    return model, numbers


def test_the_official_classifier():
    model, numbers = golden_model("litv2_tiny")
    x = numbers["input.x"].requires_grad_()
    logits = model(x)
    torch.testing.assert_close(logits, numbers["output.logits"], **EXACT)
    (logits * numbers["cotangent.logits"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_input.x"], **EXACT)
    maps = list(model.maps(x.detach()))
    for stage, after in enumerate(maps):
        entered = model.entries[stage + 1](after) if stage + 1 < len(maps) else after
        torch.testing.assert_close(entered.flatten(1, 2), numbers[f"output.stage{stage}"], **EXACT)
    low = model.float()(x.detach().float())
    assert (low - numbers["output.logits"]).abs().max() <= 1e-5 * numbers["output.logits"].abs().max()


def test_the_official_backbone_of_detectors_on_a_map_that_becomes_odd():
    model, numbers = golden_model("litv2_dense_pad")
    x = numbers["input.x"]
    for index, found in enumerate(model.features(x)):
        torch.testing.assert_close(found, numbers[f"output.map{index}"], **EXACT)

    # The file's gradient is of some other function: it is off from differences of these outputs, ours is not.
    def total(x):
        return sum((found * numbers[f"cotangent.map{index}"]).sum() for index, found in enumerate(model.features(x)))

    (gradient,) = torch.autograd.grad(total(x.requires_grad_()), x)
    step = 1e-6 * F.normalize(torch.randn_like(x).flatten(), dim=0).reshape(x.shape)
    with torch.no_grad():
        difference = total(x + step) - total(x - step)
    torch.testing.assert_close(2 * (gradient * step).sum(), difference, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("case", ["litv2_tiny", "litv2_dense_pad"])
def test_files_come_back_bit_by_bit(case):
    model, numbers = golden_model(case)
    exported = WEIGHTS.export(model)
    for name, tensor in under("weight.", numbers).items():
        assert torch.equal(exported.pop(name), tensor), name
    assert not exported


def settings_of(official):
    _, size, kind = official.split("-", 2)
    config = {"dense": {"dense": True}, "224": {}}.get(kind)
    return f"litv2_{size}", {"alpha": float(kind.removeprefix("alpha"))} if config is None else config


@pytest.mark.parametrize("official", MANIFEST)
def test_every_published_file_is_known_by_its_exact_names_and_shapes(official):
    entry = MANIFEST[official]
    name, config = settings_of(official)
    with torch.device("meta"):
        model = create(name, **config)
    assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
    shapes = WEIGHTS.shapes(model)
    if "state_dict" in entry:
        assert {n: list(s) for n, s in shapes.items()} == entry["state_dict"]
    assert len(shapes) == entry["tensors"]
    lines = "\n".join(f"{n} {tuple(s)}" for n, s in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == entry["sha256"]
    identity = identify({n: torch.empty(s, device="meta") for n, s in shapes.items()})
    assert identity.names == (name,)
    with torch.device("meta"):
        assert WEIGHTS.shapes(create(name, **identity.settings)) == shapes


@pytest.mark.parametrize(
    ("name", "size", "billions"),
    [("litv2_s", 224, 3.734), ("litv2_m", 224, 7.479), ("litv2_b", 224, 13.194), ("litv2_b", 384, 39.71)],
)
def test_costs_are_the_published_ones_but_for_norms(name, size, billions):
    """The official counter adds norms and biases, three thousandths of the whole."""
    with torch.device("meta"):
        model = create(name)
    assert cost(model, (size, size)).multiply_adds / 1e9 == pytest.approx(billions, rel=0.003)


def test_offsets_learn_at_a_hundredth_of_the_rate():
    model = litv2(8, (1, 1), (2, 2), windows=(None, 2))
    rates = {id(p): g["lr"] for g in model.parameter_groups(1.0, 0.05, layer_decay=0.5) for p in g["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert len(rates) == len(named)
    assert named["entries.1.conv.weight"] == named["stages.1.0.mixer.hi_qkv.weight"] == 0.5
    assert named["entries.1.offset.weight"] == named["entries.1.offset.bias"] == 0.005


def test_stages_of_large_maps_do_not_attend():
    with torch.device("meta"):
        model = create("litv2_b")
    mixers = [stage[0].mixer for stage in model.stages]
    assert mixers[:2] == [None, None]
    assert [(m.window, m.high, m.low) for m in mixers[2:]] == [(2, 2, 14), (1, 0, 32)]
