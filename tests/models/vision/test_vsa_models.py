"""Backbones of varied windows: the official numbers, names, shapes and counts."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from golden import load, same, under
from windeye.models import create, identify
from windeye.models.registry import PRESETS
from windeye.models.vision import Block, ConvSpec, StageSpec, cost, vitae, vsa_swin
from windeye.models.vision.conv_branch import ConvBranch
from windeye.models.vision.reduction import ReductionCell
from windeye.models.vision.vitae import WEIGHTS as VITAE
from windeye.models.vision.vsa_swin import WEIGHTS as SWIN
from windeye.nn.mixers import FullSpec, VSAMixer

MANIFEST = json.loads((Path(__file__).parents[2] / "golden" / "vsa" / "manifest.json").read_text())
PUBLISHED = {
    "swin_tiny_vsa": ("vsa_swin_t", {}),
    "swin_small_vsa": ("vsa_swin_s", {}),
    "ViTAEv2_VSA_S": ("vitaev2_s_vsa", {}),
    "ViTAEv2_VSA_widePCM_S": ("vitaev2_s_vsa_wide", {}),
    "ViTAEv2_VSA_widePCM_48M": ("vitaev2_48m_vsa", {}),
    "ViTAEv2_VSA_widePCM_B": ("vitaev2_b_vsa", {}),
    "ViTAEv2_VSA_widePCM_B_ws12": ("vitaev2_b_vsa", {"window": 12}),
}
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def swin_of(meta):
    return vsa_swin(
        meta["embed_dim"], meta["depths"], meta["heads"], window=meta["window"], num_classes=meta["classes"],
        img_size=meta["img"],
    )  # fmt: skip


def vitae_of(meta):
    return vitae(
        meta["embed_dims"], meta["token_dims"], meta["nc_depth"], meta["nc_heads"], cell_heads=meta["rc_heads"],
        groups=meta["nc_group"], cell_groups=meta["rc_group"], window=meta["window"], num_classes=meta["classes"],
        dilations=[tuple(dilations) for dilations in meta["dilations"]], img_size=meta["img"],
    )  # fmt: skip


MODELS = {"swin_vsa_tiny": (swin_of, SWIN), "vitae_vsa_tiny": (vitae_of, VITAE)}
every_model = pytest.mark.parametrize("case", MODELS)


def golden_model(case):
    make, weights = MODELS[case]
    meta, numbers = load("vsa", case)
    model = make(meta).double().eval()
    report = weights.load(model, under("weight.", numbers))
    assert {*report.loaded} == under("weight.", numbers).keys()
    return model, numbers


@every_model
def test_the_official_classifier(case):
    model, numbers = golden_model(case)
    images = numbers["input.x"].requires_grad_()
    logits = model(images)
    same(logits, numbers["output.logits"])
    (logits * numbers["cotangent.logits"]).sum().backward()
    same(images.grad, numbers["grad_input.x"])
    maps = list(model.maps(images.detach()))
    for stage, after in enumerate(maps):
        # Swin's stages end where the next of ours has been entered.
        moves_on = case == "swin_vsa_tiny" and stage + 1 < len(maps)
        ended = model.entries[stage + 1](after) if moves_on else after
        same(ended.flatten(1, 2), numbers[f"output.stage{stage}"])
    low = model.float()(images.detach().float())
    # Random regressions send rounding errors through places into whole keys: a little more than elsewhere.
    assert (low - numbers["output.logits"]).abs().max() <= 2e-5 * numbers["output.logits"].abs().max()


@every_model
def test_files_come_back_bit_by_bit(case):
    model, numbers = golden_model(case)
    exported = MODELS[case][1].export(model)
    for name, tensor in under("weight.", numbers).items():
        assert torch.equal(exported.pop(name), tensor), name
    assert exported
    assert all(name.endswith("relative_position_index") for name in exported)


@pytest.mark.parametrize("official", PUBLISHED)
def test_every_published_model_is_known_by_its_exact_names_and_shapes(official):
    entry = MANIFEST[official]
    name, config = PUBLISHED[official]
    with torch.device("meta"):
        model = create(name, **config)
    weights = PRESETS[name].weights
    assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
    shapes = weights.shapes(model)
    files = shapes | {buffer: tuple(t.shape) for buffer, t in weights.regenerated(model).items()}
    if "state_dict" in entry:
        assert {n: list(s) for n, s in files.items()} == entry["state_dict"]
    assert len(files) == entry["tensors"]
    lines = "\n".join(f"{n} {tuple(s)}" for n, s in sorted(files.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == entry["sha256"]
    identity = identify({n: torch.empty(s, device="meta") for n, s in shapes.items()})
    assert identity.names == (name,)
    with torch.device("meta"):
        assert weights.shapes(create(name, **identity.settings)) == shapes


def test_a_file_of_the_one_form_is_none_of_the_other():
    one, other = (make(load("vsa", case)[0]) for case, (make, _) in MODELS.items())
    with pytest.raises(ValueError, match="not a Swin with varied windows of these sizes"):
        SWIN.load(one, VITAE.export(other))


def test_moving_windows_costs_regressions_and_positions_only():
    """Per block: 4 numbers per head from C channels of each window, and 49 multiply-adds per number of the map; and no
    window is cut by a shift."""
    with torch.device("meta"):
        plain, moved = cost(create("swin_t")), cost(model := create("vsa_swin_t"))
    extra = attention = 0
    for stage, side in zip(model.config.stages, (56, 28, 14, 7), strict=True):
        depth, windows = len(stage.mixers), (side // 7) ** 2
        extra += depth * (windows * 4 * stage.heads * stage.dim + 49 * side**2 * stage.dim)
        attention += depth * 2 * 49 * side**2 * stage.dim
    assert moved.projections - plain.projections == extra
    assert moved.attention == attention


def test_the_branch_runs_beside_the_mixer_on_what_comes_into_the_block():
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    stage = StageSpec(8, 2, ConvSpec(), (), position=7, position_scope="branch", conv_groups=4, norm_eps=1e-6)
    block = Block(stage, FullSpec(), 0.0).double().eval()
    seen = x + block.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    y = x + block.mixer(block.norm1(seen)) + block.conv_branch(x)
    torch.testing.assert_close(block(x), y + block.feed_forward(block.norm2(y)), **EXACT)


def test_a_branch_is_three_convolutions_with_norms_and_silu_between_them():
    branch = ConvBranch((6, 12, 8, 4), groups=2, strides=(2, 2, 1)).double()
    x = torch.randn(3, 8, 12, 6, dtype=torch.float64)
    maps = x.permute(0, 3, 1, 2)
    for number, stride in ((1, 2), (2, 2), (3, 1)):
        conv = getattr(branch, f"conv{number}")
        maps = F.conv2d(maps, conv.weight, conv.bias, stride, padding=1, groups=2)
        if number < 3:
            mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), keepdim=True, unbiased=False)
            maps = (maps - mean) / (variance + 1e-5).sqrt()
            maps = maps * maps.sigmoid()
    torch.testing.assert_close(branch(x), maps.permute(0, 2, 3, 1), **EXACT)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_cell_is_so_many_times_smaller_and_starts_as_plain_windows(stride):
    cell = ReductionCell(
        6, 8, embed=4, dilations=(1, 3), kernel_size=5, stride=stride, heads=2, window=3, branch=4, groups=2
    )
    assert cell(torch.randn(2, 14, 11, 6)).shape == (2, -(-14 // stride), -(-11 // stride), 8)
    assert not any(p.any() for p in cell.mixer.regress.parameters())
    assert isinstance(cell.mixer, VSAMixer)


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="stride must be 1, 2 or 4, got 3"):
        ReductionCell(6, 8, embed=4, dilations=(1,), kernel_size=5, stride=3, heads=2, window=3, branch=4)


def test_configurations_survive_as_json():
    for case, (make, _) in MODELS.items():
        config = make(load("vsa", case)[0]).config
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))).stages == config.stages
