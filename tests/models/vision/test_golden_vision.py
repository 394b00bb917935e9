"""Swin, NAT and DiNAT against numbers of the official code: outputs, features and gradients, by the official names."""

import pytest
import torch
import torch.nn.functional as F

from golden import load, under
from windeye.models.vision import Block, ConvSpec, StageSpec, nat, swin
from windeye.models.vision.nat import SWIN_LAYOUT_WEIGHTS
from windeye.models.vision.nat import WEIGHTS as NAT
from windeye.models.vision.swin import WEIGHTS as SWIN
from windeye.nn.mixers import WindowMixer, WindowSpec

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def swin_of(meta):
    settings = meta["settings"]
    return swin(
        settings["embed_dim"], settings["depths"], settings["num_heads"], window=settings["window_size"],
        ratio=settings["mlp_ratio"], num_classes=settings["num_classes"], img_size=meta["img"],
    )  # fmt: skip


def nat_of(meta):
    return nat(
        meta["embed_dim"], meta["depths"], meta["heads"], kernel_size=meta["window"], ratio=meta["mlp_ratio"],
        dilations=meta.get("dilations", ((1,),)), layer_scale=1e-5 if meta.get("layer_scale") else None,
        layout="swin" if "DiNAT_s" in meta["model"] else "conv", num_classes=meta["classes"],
    )  # fmt: skip


MODELS = {
    "swin_tiny": ("swin", swin_of, SWIN),
    "nat_tiny": ("fna", nat_of, NAT),
    "dinat_tiny": ("fna", nat_of, NAT),
    "dinat_s_tiny": ("fna", nat_of, SWIN_LAYOUT_WEIGHTS),
}
every_model = pytest.mark.parametrize("case", MODELS)


def golden_model(case):
    paper, make, weights = MODELS[case]
    meta, numbers = load(paper, case)
    model = make(meta).double().eval()
    report = weights.load(model, under("weight.", numbers))
    return model, numbers, report


@every_model
def test_logits_features_and_gradients_are_the_official_ones(case):
    model, numbers, _ = golden_model(case)
    images = numbers["input.x"].requires_grad_()
    logits = model(images)
    torch.testing.assert_close(logits, numbers["output.logits"], **EXACT)
    (logits * numbers["cotangent.logits"]).sum().backward()
    torch.testing.assert_close(images.grad, numbers["grad_input.x"], **EXACT)
    # Official stages end where the next of ours has been entered.
    maps = list(model.maps(numbers["input.x"].detach()))
    for stage, after in enumerate(maps):
        entered = model.entries[stage + 1](after) if stage + 1 < len(maps) else after
        names = [f"output.{word}{stage}" for word in ("stage", "level")]
        (expected,) = (numbers[name] for name in names if name in numbers)
        torch.testing.assert_close(entered.reshape(expected.shape), expected, **EXACT)


@every_model
def test_in_float32_too(case):
    model, numbers, _ = golden_model(case)
    logits = model.float()(numbers["input.x"].float())
    expected = numbers["output.logits"]
    assert (logits.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@every_model
def test_nothing_of_the_file_is_left_over_and_it_comes_back_bit_by_bit(case):
    model, numbers, report = golden_model(case)
    official = under("weight.", numbers)
    assert {*report.loaded, *report.dropped} == set(official)
    assert all(name.endswith(("attn_mask", "relative_position_index")) for name in report.dropped)
    exported = MODELS[case][2].export(model)
    for name, tensor in official.items():
        assert torch.equal(exported[name].to(tensor.dtype), tensor), name


@pytest.mark.parametrize("case", ["block_shift", "block_small_map"])
def test_a_block_is_the_official_one(case):
    meta, numbers = load("swin", case)
    window = meta["effective_window"]
    stage = StageSpec(meta["dim"], meta["heads"], ConvSpec(), (), ratio=meta["mlp_ratio"])
    block = Block(stage, WindowSpec(window, shift=meta["shift"] % window, pad_input=True), 0.0).double()
    state = block.state_dict()
    for name in state:
        rule = SWIN.rule(f"stages.0.0.{name}")
        parts = [numbers[part.replace("layers.0.blocks.0.", "weight.")] for part in rule.names]
        state[name].copy_(rule.to_ours(parts, tuple(state[name].shape)))
    x = numbers["input.x"].requires_grad_()
    out = block(x.unflatten(1, (meta["H"], meta["W"]))).flatten(1, 2)
    torch.testing.assert_close(out, numbers["output.out"], **EXACT)
    (out * numbers["cotangent.out"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_input.x"], **EXACT)
    for name, parameter in block.named_parameters():
        rule = SWIN.rule(f"stages.0.0.{name}")
        (gradient,) = rule.to_theirs(parameter.grad)
        expected = numbers.get(rule.names[0].replace("layers.0.blocks.0.", "grad_weight."))
        if expected is not None:
            torch.testing.assert_close(gradient, expected, **EXACT)


def test_a_rectangular_window_looks_into_its_table_as_the_official_one():
    meta, numbers = load("swin", "window_attention_3x5_mask")
    heads, (rows, columns) = meta["heads"], meta["window"]
    mixer = WindowMixer(meta["dim"], heads, (rows, columns)).double()
    table = SWIN.rule("stages.0.0.mixer.bias_table")
    weights = {name: numbers[f"weight.{name}"] for name in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")}
    shape = tuple(mixer.bias_table.shape)
    weights["bias_table"] = table.to_ours([numbers["weight.relative_position_bias_table"]], shape)
    mixer.load_state_dict(weights)
    x = numbers["input.x"].unflatten(1, (rows, columns))
    (plan,) = mixer.plans(x)
    query, key, value = (t.flatten(1, 2).transpose(1, 2) for t in (plan.query, plan.key, plan.value))
    step = [torch.arange(side)[None] - torch.arange(side)[:, None] + side - 1 for side in (rows, columns)]
    spread = mixer.bias_table[:, step[0][:, None, :, None], step[1][None, :, None, :]].flatten(3, 4).flatten(1, 2)
    free = F.scaled_dot_product_attention(query, key, value, attn_mask=spread)
    torch.testing.assert_close(mixer.attention(x).flatten(1, 2), free.transpose(1, 2), **EXACT)
    mask = spread + numbers["input.mask"].repeat(meta["batch"], 1, 1)[:, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixer.proj(mixed), numbers["output.out"], **EXACT)
