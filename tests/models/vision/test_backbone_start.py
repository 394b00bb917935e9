"""What the weights of backbones start from."""

import pytest
import torch

from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, StageSpec
from windeye.nn.mixers import FullSpec, VSASpec


def backbone(mixer=None, **config):
    torch.manual_seed(0)
    stage = StageSpec(64, 4, ConvSpec(), (mixer or FullSpec(),))
    return HierarchicalBackbone(BackboneConfig((stage,), num_classes=50, **config))


@pytest.mark.parametrize(("config", "std"), [({}, 0.02), ({"init_std": 0.1}, 0.1)])
def test_linear_maps_start_with_the_std_of_the_configuration(config, std):
    model = backbone(**config)
    for linear in (module for module in model.modules() if isinstance(module, torch.nn.Linear)):
        assert linear.weight.std().item() == pytest.approx(std, rel=0.1)
        assert not linear.bias.any()


def test_without_a_std_they_start_between_bounds_that_follow_from_their_inputs():
    model = backbone(init_std=None)
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert {linear.in_features for linear in linears} == {64, 256}
    for linear in linears:
        bound = linear.in_features**-0.5
        assert 0.98 * bound < linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not linear.bias.any()
    model.reset_head(40)
    assert 0.98 / 8 < model.head.weight.abs().max() <= 1 / 8


def test_what_modules_start_themselves_is_left_to_them():
    assert not backbone(VSASpec(4), init_std=None).stages[0][0].mixer.regress.weight.any()


def test_the_start_is_part_of_the_configuration():
    config = backbone(init_std=None).config
    assert BackboneConfig.from_dict(config.to_dict()) == config
