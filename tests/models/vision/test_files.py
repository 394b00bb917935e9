"""Backbones in files: everything comes back, anything else is refused."""

import pytest
import torch
from safetensors.torch import save_file

from windeye.models.vision import (
    BackboneConfig,
    ConvSpec,
    HierarchicalBackbone,
    MergeSpec,
    StageSpec,
    load_backbone,
    save_backbone,
    vit,
)
from windeye.nn.mixers import MIXERS


def small(spec):
    stages = (
        StageSpec(16, 2, ConvSpec(), (spec,), layer_scale=0.1),
        StageSpec(32, 4, MergeSpec(), (None, spec), position=3, depthwise=True),
    )
    config = BackboneConfig(stages, in_chans=1, num_classes=3, feature_norms=(0,), img_size=(32, 40))
    return HierarchicalBackbone(config).eval()


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_every_mixer_survives(kind, tmp_path):
    torch.manual_seed(0)
    model = small(MIXERS[kind]())
    again = load_backbone(save_backbone(model, tmp_path / "deep" / "model.safetensors")).eval()
    images = torch.randn(2, 1, 32, 40)
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("positions", ["waves", "table"])
def test_vision_transformers_survive(positions, tmp_path):
    model = vit(16, 2, 4, patch=8, in_chans=1, num_classes=3, positions=positions, img_size=(32, 40)).eval()
    again = load_backbone(save_backbone(model, tmp_path / "vit.safetensors")).eval()
    images = torch.randn(2, 1, 32, 40)
    assert again.config == model.config
    assert torch.equal(again(images), model(images))


def test_dtypes_survive(tmp_path):
    model = load_backbone(save_backbone(small(None).to(torch.bfloat16), tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_file_that_is_there_is_replaced_whole_or_kept(tmp_path, monkeypatch):
    path = save_backbone(small(None), tmp_path / "model.safetensors")
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_backbone(small(None), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_backbone_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_backbone(tmp_path / "nowhere.safetensors")
    text = tmp_path / "notes.txt"
    text.write_text("windows and eyes, and many more words about them")
    with pytest.raises(ValueError, match=r"notes.txt is no safetensors file"):
        load_backbone(text)
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"without a configuration.*create"):
        load_backbone(tmp_path / "other.safetensors")
