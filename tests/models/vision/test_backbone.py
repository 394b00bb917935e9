"""The skeleton: stages, features, depths and groups, whatever the mixers."""

import copy
import json

import pytest
import torch

import windeye.models
from windeye.models.registry import PRESETS
from windeye.models.vision import (
    BackboneConfig,
    ConvSpec,
    HierarchicalBackbone,
    MergeSpec,
    StageSpec,
    TwoConvSpec,
    biformer,
    cswin,
    litv2,
    maformer,
    nat,
    swin,
    vitae,
    vsa_swin,
)
from windeye.nn.drop_path import DropPath
from windeye.nn.mixers import MIXERS, FullSpec, MultiScaleFusionSpec, TokenMixer, WindowSpec


def shapes_only(_mixer, x, plans):
    heads = sum(plan.query.shape[-2] for plan in plans)
    return x.new_empty(*x.shape[:3], heads, plans[0].value.shape[-1])


PUBLISHED = [name for name, preset in PRESETS.items() if preset.build.__module__.startswith("windeye.models.vision")]
FAMILIES = {
    "swin": lambda **config: swin(8, (2, 2), (2, 2), window=3, num_classes=5, **config),
    "nat": lambda **config: nat(8, (1, 2), (2, 2), kernel_size=3, layer_scale=0.1, num_classes=5, **config),
    "dinat": lambda **config: nat(
        8, (2, 1), (2, 2), kernel_size=3, dilations=((1, 2), (1,)), layout="swin", num_classes=5, **config
    ),
    "cswin": lambda **config: cswin(8, (1, 1), (2, 2), stripes=(2, None), num_classes=5, **config),
    "biformer": lambda **config: biformer(8, (1, 1), regions=3, keep=(2, None), head_dim=4, num_classes=5, **config),
    "maformer": lambda **config: maformer(
        (8, 16), (1, 2), (2, 4), fusion=MultiScaleFusionSpec(window=3), num_classes=5, img_size=40, **config
    ),
    "litv2": lambda **config: litv2(8, (1, 1), (2, 2), windows=(None, 2), alpha=0.5, num_classes=5, **config),
    "vsa_swin": lambda **config: vsa_swin(8, (2, 2), (2, 2), window=3, num_classes=5, **config),
    "vitae": lambda **config: vitae(
        (4, 4),
        (8, 16),
        (2, 2),
        (2, 2),
        cell_heads=(2, 2),
        groups=(1, 4),
        cell_groups=(1, 4),
        window=3,
        dilations=((1, 2), (1, 2)),
        num_classes=5,
        **config,
    ),
}
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def images(height=37, width=46, batch=2, channels=3):
    return torch.randn(batch, channels, height, width, dtype=torch.float64)


@every_family
@pytest.mark.parametrize("size", [(37, 46), (32, 32), (4, 9), (1, 1)])
def test_images_of_any_size_give_logits_and_a_pyramid(make, size):
    model, x = make().double().eval(), images(*size)
    assert model(x).shape == (2, 5)
    for features, info in zip(model.features(x), model.feature_info, strict=True):
        expected = [-(-side // info.reduction) for side in size]
        assert list(features.shape) == [2, info.channels, *expected]


@every_family
def test_every_parameter_learns(make):
    model = make().double()
    model(images()).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@every_family
def test_features_are_what_the_head_reads(make):
    model, x = make().double().eval(), images()
    (last,) = model.features(x, out=[-1])
    torch.testing.assert_close(model.final_norm(last.permute(0, 2, 3, 1)), model.forward_features(x), **EXACT)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x), **EXACT)
    assert [f.shape[1] for f in model.features(x, out=(1, 0))] == [16, 8]
    with pytest.raises(ValueError, match=r"out must name stages in \[-2, 2\), got \[2\]"):
        model.features(x, out=[2])


@every_family
def test_checkpointing_changes_memory_and_nothing_else(make):
    model, x = make().double(), images()
    plain = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.set_grad_checkpointing()
    again = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@every_family
def test_a_configuration_survives_as_data(make):
    config = make().config
    assert BackboneConfig.from_dict(config.to_dict()) == config


@every_family
def test_channels_last_images_are_as_good_as_any(make):
    model, x = make().double().eval(), images()
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), model(x), **EXACT)


@pytest.mark.parametrize("kind", MIXERS)
def test_every_mixer_lives_in_a_backbone(kind):
    stages = (
        StageSpec(12, 2, ConvSpec(), (MIXERS[kind](), None), depthwise=True, position=3, layer_scale=0.1),
        StageSpec(24, 2, MergeSpec(), (MIXERS[kind](),), position=3, position_scope="branch"),
    )
    model = HierarchicalBackbone(BackboneConfig(stages, in_chans=1, num_classes=4, final_norm="batch")).double()
    logits = model(images(21, 30, channels=1))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert BackboneConfig.from_dict(model.config.to_dict()) == model.config


def test_positions_are_encoded_without_a_mixer_too():
    """Where the trunk keeps them; in a branch there would be nobody to read them."""
    from windeye.models.vision import Block

    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    block = Block(StageSpec(8, 2, ConvSpec(), (), position=3), None, 0.0).double()
    seen = x + block.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(block(x), seen + block.feed_forward(block.norm2(seen)), **EXACT)
    assert Block(StageSpec(8, 2, ConvSpec(), (), position=3, position_scope="branch"), None, 0.0).position is None


def test_where_the_position_encoding_goes():
    """The trunk keeps it, or only the mixer sees it."""
    from windeye.models.vision import Block

    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    for scope in ("trunk", "branch"):
        block = Block(StageSpec(8, 2, ConvSpec(), (), position=3, position_scope=scope), FullSpec(), 0.0).double()
        seen = x + block.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = (seen if scope == "trunk" else x) + block.mixer(block.norm1(seen))
        torch.testing.assert_close(block(x), y + block.feed_forward(block.norm2(y)), **EXACT)


def test_drop_path_leaves_out_whole_branches_and_grows_with_depth():
    model = swin(8, (2, 2), (2, 2), window=3, drop_path=0.3)
    rates = [block.drop_path.rate for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    x = torch.ones(4000, 2, 2, 3)
    dropped = DropPath(0.25)(x)
    kept = dropped[:, 0, 0, 0] > 0
    assert torch.equal(dropped, x / 0.75 * kept[:, None, None, None])
    assert abs(kept.float().mean() - 0.75) < 0.03
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1"):
        DropPath(1)


def test_entries_and_blocks_have_depths():
    model = swin(8, (2, 3), (2, 2), window=3)
    assert model.layer_of("entries.0.conv.weight") == 0
    assert [model.layer_of(f"stages.{s}.{b}.norm1.weight") for s, b in [(0, 0), (0, 1), (1, 0), (1, 2)]] == [1, 2, 3, 5]
    assert model.layer_of("entries.1.proj.weight") == 3
    assert model.layer_of("head.weight") == model.layer_of("final_norm.weight") == 6


def test_groups_decay_matrices_only_and_by_depth():
    model = nat(8, (1, 1), (2, 2), kernel_size=3, layer_scale=0.1)
    groups = model.parameter_groups(1.0, 0.05, layer_decay=0.5)
    by_id = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(by_id) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    named = {name: by_id[id(p)] for name, p in model.named_parameters()}
    assert named["head.weight"] == (1.0, 0.05)
    assert named["head.bias"] == (1.0, 0.0)
    assert named["stages.1.0.mixer.layer.rpb"] == (0.5, 0.0)
    assert named["stages.1.0.mixer.layer.qkv.weight"] == (0.5, 0.05)
    assert named["stages.0.0.scale1"] == (0.25, 0.0)
    assert named["entries.0.conv1.weight"] == (0.125, 0.05)


def test_a_model_without_head_gives_the_mean_token_and_takes_a_new_head():
    model = swin(8, (1, 1), (2, 2), num_classes=0)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 16)
    model.reset_head(7)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_features_may_have_norms_of_their_own():
    stages = (StageSpec(8, 2, TwoConvSpec(), (WindowSpec(3),)), StageSpec(16, 2, MergeSpec(), (WindowSpec(3),)))
    model = HierarchicalBackbone(BackboneConfig(stages, num_classes=0, final_norm="none", feature_norms=(1,))).double()
    plain = copy.deepcopy(model)
    del plain.feature_norms["1"]
    ours, raw = model.features(images()), plain.features(images())
    assert [f.shape for f in ours] == [f.shape for f in raw]
    x = images()
    (normed,), (bare,) = model.features(x, out=(1,)), plain.features(x, out=(1,))
    torch.testing.assert_close(
        normed, torch.nn.functional.layer_norm(bare.permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: swin(8, (1,), (2,))(torch.randn(1, 4, 8, 8)), ValueError, "in_chans 3"),
        (lambda: HierarchicalBackbone(BackboneConfig(())), ValueError, "at least one stage"),
        (lambda: nat(8, (1,), (2,), layout="vit"), ValueError, "layout must be one of conv, swin, got 'vit'"),
        (lambda: nat(8, (1, 1), (2, 2), dilations=((1,),) * 3), ValueError, "1 or 2 stages, got 3"),
        (lambda: StageSpec(8, 2, ConvSpec(), (), position=4), ValueError, "position must be odd, got 4"),
        (lambda: StageSpec(8, 2, ConvSpec(), (), position_scope="x"), ValueError, "position_scope must be one of"),
    ],
)  # fmt: skip
def test_bad_configurations_are_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_keeps_the_contract(name, monkeypatch):
    """On no memory and without attending: pyramids as declared, configurations as data, depths of all parameters, a new
    head."""
    monkeypatch.setattr(TokenMixer, "outputs", shapes_only)
    with torch.device("meta"):
        model = windeye.models.create(name).eval()
        height, width = model.config.img_size
        maps = model.features(torch.empty(1, 3, height, width))
    for features, info in zip(maps, model.feature_info, strict=True):
        assert tuple(features.shape) == (1, info.channels, height // info.reduction, width // info.reduction)
    assert type(model.config).from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config
    depths = {model.layer_of(parameter) for parameter, _ in model.named_parameters()}
    assert depths == set(range(max(depths) + 1))
    model.reset_head(7)
    assert model.head.weight.shape == (7, model.feature_info[-1].channels)


def test_published_models_come_by_name():
    with torch.device("meta"):
        model = windeye.models.create("swin_t", in_chans=1, num_classes=10, img_size=256)
    assert model.head.weight.shape == (10, 768)
    assert model.entries[0].conv.weight.shape == (96, 1, 4, 4)


@pytest.mark.parametrize("family", ["swin", "cswin", "biformer"])
def test_one_compiled_graph_serves_images_of_all_sizes(family):
    """The other families, too; their graphs take longer to trace."""
    model, graphs = FAMILIES[family]().double().eval(), []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        for size in ((50, 77), (64, 96)):
            x = images(*size)
            for axis in (2, 3):
                torch._dynamo.mark_dynamic(x, axis)
            torch.testing.assert_close(compiled(x), model(x), **EXACT)
    assert len(graphs) == 1
