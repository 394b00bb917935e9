"""Official files of vision models: names, shapes, identification, resizing; nothing is guessed."""

import argparse
import hashlib
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import pytest
import torch

import windeye.models
from models.official import there_and_back
from windeye.models import create, identify, read_checkpoint
from windeye.models.registry import PRESETS
from windeye.models.vision import cswin, litv2, nat, swin
from windeye.models.vision.cswin import WEIGHTS as CSWIN
from windeye.models.vision.litv2 import WEIGHTS as LITV2
from windeye.models.vision.nat import WEIGHTS as NAT
from windeye.models.vision.swin import WEIGHTS as SWIN

GOLDEN = Path(__file__).parents[2] / "golden"
MANIFESTS = {family: json.loads((GOLDEN / family / "manifest.json").read_text()) for family in ("swin", "fna")}
PUBLISHED = {
    ("swin", "swin_tiny_patch4_window7_224"): ("swin_t", {}),
    ("swin", "swin_tiny_patch4_window7_224_22k"): ("swin_t", {"num_classes": 21841}),
    ("swin", "swin_small_patch4_window7_224"): ("swin_s", {}),
    ("swin", "swin_base_patch4_window7_224"): ("swin_b", {}),
    ("swin", "swin_base_patch4_window12_384_finetune"): ("swin_b", {"window": 12, "img_size": 384}),
    ("swin", "swin_large_patch4_window12_384_22kto1k_finetune"): ("swin_l", {"window": 12, "img_size": 384}),
} | {("fna", name): (name, {}) for name in PRESETS if name.startswith(("nat_", "dinat_"))}
CSWIN_MILLIONS = {"cswin_t": 23, "cswin_s": 35, "cswin_b": 78}


def digest(shapes):
    return hashlib.sha256(
        "\n".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items())).encode()
    ).hexdigest()


def on_meta(name, **config):
    with torch.device("meta"):
        return create(name, **config)


@pytest.mark.parametrize(("family", "official"), PUBLISHED)
def test_parameters_names_and_shapes_are_those_of_the_official_constructors(family, official):
    manifest = MANIFESTS[family][official]
    name, config = PUBLISHED[family, official]
    model = on_meta(name, **config)
    weights = PRESETS[name].weights
    assert sum(p.numel() for p in model.parameters()) == manifest["parameters"]
    shapes = weights.shapes(model)
    if weights.regenerated is not None:
        shapes |= {buffer: tuple(t.shape) for buffer, t in weights.regenerated(model).items()}
    if "state_dict" in manifest:
        assert {n: list(s) for n, s in shapes.items()} == manifest["state_dict"]
    assert len(shapes) == manifest["tensors"]
    assert digest(shapes) == manifest["sha256"]


@pytest.mark.parametrize("name", CSWIN_MILLIONS)
def test_cswin_has_the_published_millions_of_parameters(name):
    """No manifest is at hand: the table of peers in the maformer spec, to its whole millions (rounded up there)."""
    millions = sum(p.numel() for p in on_meta(name).parameters()) / 1e6
    assert CSWIN_MILLIONS[name] - 1 < millions <= CSWIN_MILLIONS[name]


FAMILIES = {
    "swin": (SWIN, lambda: swin(8, (2, 2), (2, 2), window=4, num_classes=5, img_size=32)),
    "nat": (NAT, lambda: nat(8, (1, 2), (2, 2), kernel_size=3, layer_scale=0.1, num_classes=5)),
    "cswin": (CSWIN, lambda: cswin(8, (1, 2), (2, 2), stripes=(2, None), num_classes=5)),
    "litv2": (LITV2, lambda: litv2(8, (1, 2), (2, 2), windows=(None, 2), alpha=0.5, num_classes=5)),
}
every_family = pytest.mark.parametrize(("weights", "make"), FAMILIES.values(), ids=FAMILIES)


@every_family
def test_there_and_back_is_bit_identical(weights, make):
    official, report = there_and_back(weights, make)
    assert {*report.loaded, *report.dropped} == official.keys()
    assert all(tensor.is_contiguous() for tensor in official.values())


def test_names_of_cswin():
    names = sorted(CSWIN.export(cswin(8, (1, 1), (2, 2), stripes=(1, None), num_classes=5)))
    assert [n for n in names if n.startswith("stage1.0.") and n.endswith("weight")] == [
        "stage1.0.attns.0.get_v.weight",
        "stage1.0.attns.1.get_v.weight",
        "stage1.0.mlp.fc1.weight",
        "stage1.0.mlp.fc2.weight",
        "stage1.0.norm1.weight",
        "stage1.0.norm2.weight",
        "stage1.0.proj.weight",
        "stage1.0.qkv.weight",
    ]
    assert {"stage1_conv_embed.0.weight", "stage1_conv_embed.2.bias", "merge1.conv.bias", "merge1.norm.weight"} < {
        *names
    }
    assert "stage2.0.attns.0.get_v.weight" in names
    assert "stage2.0.attns.1.get_v.weight" not in names


@pytest.mark.parametrize(
    ("name", "config", "found"),
    [
        ("swin_t", {}, ("swin_t",)),
        ("swin_b", {"num_classes": 21841}, ("swin_b",)),
        ("swin_b", {"window": 12, "img_size": 384}, ("swin_b",)),
        ("nat_mini", {"in_chans": 1}, ("dinat_mini", "nat_mini")),
        ("nat_small", {"num_classes": 0}, ("nat_small",)),
        ("dinat_small", {}, ("dinat_small",)),
        ("dinat_s_tiny", {}, ("dinat_s_tiny",)),
        ("cswin_s", {"num_classes": 7}, ("cswin_s",)),
    ],
)
def test_a_file_says_what_it_is(name, config, found):
    weights = PRESETS[name].weights
    checkpoint = {n: torch.empty(s, device="meta") for n, s in weights.shapes(on_meta(name, **config)).items()}
    identity = identify(checkpoint)
    assert tuple(sorted(identity.names)) == found
    assert identity.family == weights.name
    again = on_meta(identity.names[0], **identity.settings)
    assert weights.shapes(again) == {n: tuple(t.shape) for n, t in checkpoint.items()}


def test_what_is_nothing_we_know_is_said():
    with pytest.raises(ValueError, match="no known family has names such as a, b"):
        identify({"a": torch.ones(1), "b": torch.ones(1)})
    small = SWIN.export(swin(8, (2, 2), (2, 2), window=4, num_classes=5, img_size=32))
    with pytest.raises(ValueError, match="names of Swin but the sizes of no published model"):
        identify(small)


def test_tables_are_interpolated_only_when_asked():
    trained = swin(8, (2,), (2,), window=4, num_classes=5, img_size=32)
    larger = swin(8, (2,), (2,), window=6, num_classes=5, img_size=48)
    official = SWIN.export(trained)
    with pytest.raises(
        ValueError, match=r"has shape \(49, 2\) but the model needs \(121, 2\); resize=True interpolates"
    ):
        SWIN.load(larger, official)
    report = SWIN.load(larger, official, resize=True)
    assert len(report.resized) == 2
    assert str(report).endswith("2 resized")
    flat = torch.full((2, 7, 7), 0.3)
    with torch.no_grad():
        trained.stages[0][0].mixer.bias_table.copy_(flat)
        SWIN.load(larger, SWIN.export(trained), resize=True)
    torch.testing.assert_close(larger.stages[0][0].mixer.bias_table, torch.full((2, 11, 11), 0.3))
    # A slope along the columns stays one, in its direction.
    slope = torch.linspace(-1, 1, 7).expand(2, 7, 7)
    with torch.no_grad():
        trained.stages[0][0].mixer.bias_table.copy_(slope)
        SWIN.load(larger, SWIN.export(trained), resize=True)
    table = larger.stages[0][0].mixer.bias_table
    assert (table.diff(dim=2) > 0).all()
    assert table.diff(dim=1).abs().max() < 1e-6


def test_create_reads_official_files(tmp_path):
    model = create("nat_mini", num_classes=3)
    torch.save({"model": NAT.export(model)}, tmp_path / "nat.pth")
    loaded = create("nat_mini", weights=tmp_path / "nat.pth", num_classes=3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    ours = create("nat_mini", weights=tmp_path / "ours.pth", num_classes=3)
    assert torch.equal(ours.head.weight, model.head.weight)
    wide = create("nat_mini", weights=tmp_path / "nat.pth", num_classes=3, kernel_size=9, resize_tables=True)
    assert wide.stages[0][0].mixer.layer.rpb.shape == (2, 17, 17)


@pytest.fixture
def settings_class():
    """A class of a library that whoever loads the file does not have."""
    module = ModuleType("absent_settings")
    sys.modules["absent_settings"] = module
    module.Node = type("Node", (dict,), {"__module__": "absent_settings", "__qualname__": "Node"})
    yield module.Node
    sys.modules.pop("absent_settings", None)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema", "model_ema", None])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_files_are_read_without_their_classes(tmp_path, settings_class, wrapper, zipped):
    weights = OrderedDict({"module.a": torch.ones(2), "module.b": torch.zeros(3)})
    content = weights if wrapper is None else {wrapper: weights, "epoch": 3}
    if wrapper is not None and zipped:
        content |= {"config": settings_class(data=settings_class(size=3)), "args": argparse.Namespace(x=1)}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    sys.modules.pop("absent_settings")
    read = read_checkpoint(tmp_path / "file.pth")
    assert {name: tuple(t.shape) for name, t in read.items()} == {"a": (2,), "b": (3,)}


class Shell:
    """What a malicious file holds: a call that is made when it is read."""

    def __reduce__(self):
        return os.system, ("echo code of a file has run",)


class Print:
    def __reduce__(self):
        return print, ("code of a file has run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("trap", [Shell, Print])
def test_no_code_of_a_file_runs(tmp_path, capfd, trap, zipped):
    content = {"model": {"a": torch.ones(2)}, "x": trap()}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    if zipped and trap is Print:
        assert list(read_checkpoint(tmp_path / "file.pth")) == ["a"]
    else:
        with pytest.raises(ValueError, match="holds what is not read"):
            read_checkpoint(tmp_path / "file.pth")
    assert "code of a file has run" not in capfd.readouterr().out


def test_files_without_weights_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth holds no tensors, only epoch"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save([1], tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b.pth holds no weights but a list"):
        read_checkpoint(tmp_path / "b.pth")


def test_identify_is_public():
    assert windeye.models.identify is identify
