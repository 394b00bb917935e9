"""Mixers whose attention is one call are watched and steered like any other layer."""

import pytest
import torch

from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, MergeSpec, StageSpec
from windeye.nn.mixers import BiLevelRoutingSpec, FullSpec, NeighborhoodSpec, SpatialReductionSpec, WindowSpec
from windeye.sites import Scale, Where, parts_of, record, steer, watch

SPECS = (
    FullSpec(),
    WindowSpec(3),
    WindowSpec(3, shift=1),
    NeighborhoodSpec(3),
    SpatialReductionSpec(2),
    BiLevelRoutingSpec(2, 2),
)


@pytest.fixture
def model():
    stages = (StageSpec(8, 2, ConvSpec(), SPECS[:3]), StageSpec(16, 2, MergeSpec(), SPECS[3:]))
    return HierarchicalBackbone(BackboneConfig(stages, num_classes=4)).double().eval()


def test_every_mixer_of_a_backbone_is_one_layer(model):
    hosts = [layer.host for layer in parts_of(model).layers]
    assert hosts == [block.mixer for stage in model.stages for block in stage]


def test_watched_entropies_are_those_of_the_dense_matrices(model):
    images = torch.randn(2, 3, 32, 44, dtype=torch.float64)
    mixers = [block.mixer for stage in model.stages for block in stage]
    inputs = []
    hooks = [mixer.register_forward_hook(lambda _, args, __: inputs.append(args[0])) for mixer in mixers]
    plain = model(images)
    for hook in hooks:
        hook.remove()
    with watch(model, ["entropy"]) as seen:
        assert torch.equal(model(images), plain)
    for number, (mixer, x) in enumerate(zip(mixers, inputs, strict=True)):
        entropy = torch.special.entr(mixer.to_dense(x)).sum(-1).transpose(1, 2)
        torch.testing.assert_close(seen["entropy", number], entropy)


def test_a_silenced_head_is_a_head_of_zeros(model):
    mixer, x = model.stages[0][1].mixer, torch.randn(1, 7, 8, 8, dtype=torch.float64)
    with record(mixer, ["z"]) as kept:
        mixer(x)
    out = kept["z", 0].clone()
    out[:, :, 1] = 0
    with steer(mixer, [Scale("z", 0.0, where=Where(heads=(1,)))]):
        torch.testing.assert_close(mixer(x), mixer.proj(out.reshape(1, 7, 8, 8)))
