"""Layers and primitives against numbers from the official legacy code."""

import pytest
import torch

import windeye
from golden import load, same, under
from windeye.nn import NeighborhoodAttention2d

BACKENDS = ["cpu", "reference"]


def layer_of(meta, numbers, **options):
    layer = NeighborhoodAttention2d(
        meta["dim"], meta["heads"], meta["window"], dilation=meta["dilation"], bias_table=True, **options
    ).double()
    layer.load_state_dict(under("weight.", numbers), strict=True)
    return layer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["module_w5_d1", "module_w3_d3_small_map"])
def test_the_module_is_the_official_one_with_all_its_gradients(case, backend):
    meta, numbers = load("fna", case)
    layer = layer_of(meta, numbers, small_map="pad", backend=backend)
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    same(out, numbers["output.out"])
    (out * numbers["cotangent.out"]).sum().backward()
    same(x.grad, numbers["grad_input.x"])
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert sorted(gradients) == ["proj.bias", "proj.weight", "qkv.bias", "qkv.weight", "rpb"]
    for name, gradient in gradients.items():
        same(gradient, numbers[f"grad_weight.{name}"])


def test_in_float32_the_module_agrees_to_single_precision():
    meta, numbers = load("fna", "module_w5_d1")
    out = layer_of(meta, numbers).float()(numbers["input.x"].float())
    expected = numbers["output.out"]
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_small_map_is_refused_unless_padding_is_asked_for():
    meta, numbers = load("fna", "module_w3_d3_small_map")
    with pytest.raises(ValueError, match=r"needs 9 keys but axis 0 has 6"):
        layer_of(meta, numbers)(numbers["input.x"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["na1d_w5_rpb", "na2d_w3_d2_rpb"])
def test_attend_is_the_two_official_primitives_with_the_bias_gradient(case, backend):
    meta, numbers = load("fna", case)
    leaves = {name: numbers[f"input.{name}"].requires_grad_() for name in ("q", "k", "v", "rpb")}
    q, k, v = (leaves[name].movedim(1, -2) for name in ("q", "k", "v"))
    pattern = windeye.Neighborhood(meta["window"], dilation=meta["dilation"])
    out, lse = windeye.attend(q, k, v, pattern, bias=leaves["rpb"], backend=backend, return_lse=True)
    out = out.movedim(-2, 1)
    same(out, numbers["output.out"])
    same(lse.movedim(-1, 1), numbers["output.logits"].logsumexp(-1))
    gradients = torch.autograd.grad((out * numbers["cotangent.out"]).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        same(gradient, numbers[f"grad_input.{name}"])
