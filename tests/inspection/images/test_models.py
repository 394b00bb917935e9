"""Models by what a person calls them, and what is said of wrong names and weights of another model."""

import json

import pytest
import torch

import windeye.models
from windeye.inspection.images.models import RANDOM, vision_model
from windeye.models.vision import save_backbone, swin
from windeye.models.vision.nat import WEIGHTS as NAT
from windeye.models.vision.swin import WEIGHTS as SWIN


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    small = swin(16, (1, 1), (2, 2), window=4, num_classes=3)
    save_backbone(small, folder / "small.safetensors")
    ten = windeye.models.create("swin_t", num_classes=10)
    torch.save({"model": SWIN.export(ten)}, folder / "swin.pth")
    torch.save(NAT.export(windeye.models.create("nat_mini")), folder / "nat.pth")
    torch.save({"a": torch.zeros(2)}, folder / "other.pth")
    (folder / "text.pth").write_text("no weights")
    (folder / "text.safetensors").write_text("no weights")
    return folder, small, ten


def test_a_published_name_has_random_weights_unless_they_are_given(files):
    folder, _, ten = files
    fresh = vision_model("swin_t")
    assert (fresh.name, fresh.weights, fresh.model.training) == ("swin_t", RANDOM, False)
    given = vision_model("swin_t", folder / "swin.pth")  # ten classes are read off the file
    assert given.weights == "swin.pth"
    for name, tensor in ten.state_dict().items():
        assert torch.equal(given.model.state_dict()[name], tensor)


def test_files_tell_what_they_are_of(files):
    folder, small, ten = files
    ours = vision_model(folder / "small.safetensors")
    assert ours.name == "small"
    assert ours.model.config == small.config
    assert torch.equal(ours.model.head.weight, small.head.weight)
    official = vision_model(str(folder / "swin.pth"))
    assert official.name == "swin_t"
    assert torch.equal(official.model.head.weight, ten.head.weight)


def test_wrong_names_and_weights_of_another_model_are_told(files):
    folder, *_ = files
    for model, weights, said in (
        ("swint", None, "there is no vision model 'swint'; did you mean swin_t"),
        ("tnl_385m", None, "there is no vision model 'tnl_385m'"),
        ("swin_s", folder / "swin.pth", "holds weights of swin_t (Swin), not of swin_s"),
        ("swin_t", folder / "nat.pth", "holds weights of nat_mini or dinat_mini (NAT), not of swin_t"),
        ("swin_t", folder / "other.pth", "does not fit swin_t"),
        ("swin_t", folder / "text.pth", "cannot be read"),
        ("swin_t", folder / "nowhere.pth", "cannot be read"),
        (folder / "small.safetensors", folder / "swin.pth", "has weights of its own"),
        (folder / "other.pth", None, "neither a file of save_backbone nor official weights"),
        (folder / "nat.pth", None, "fits nat_mini or dinat_mini: name the one"),
        (folder / "text.safetensors", None, "is no safetensors file"),
        (folder, None, "neither a file of save_backbone nor official weights"),
    ):
        with pytest.raises(ValueError) as error:
            vision_model(model, weights)
        assert said in str(error.value)


def test_a_folder_of_transformers_is_a_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]})
    )
    found = vision_model(tmp_path / "vit")
    assert (found.name, found.colours) == ("vit", ((0.1, 0.2, 0.3), (1, 2, 3)))
    with pytest.raises(ValueError, match="no model of transformers can be read from nobody/nothing"):
        vision_model("nobody/nothing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no model of transformers can be read"):
        vision_model(tmp_path / "broken")
