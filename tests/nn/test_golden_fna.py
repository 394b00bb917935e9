"""Layers and primitives against numbers from the official legacy code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import windeye
from windeye.nn import NeighborhoodAttention2d

GOLDEN = Path(__file__).parents[1] / "golden" / "fna"
BACKENDS = ["cpu", "reference"]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def load(case):
    with np.load(GOLDEN / f"{case}.npz") as file:
        meta = json.loads(str(file["meta"]))
        return meta, {k: torch.from_numpy(file[k]).double() for k in file if k != "meta"}


def layer_of(meta, numbers, **options):
    layer = NeighborhoodAttention2d(
        meta["dim"], meta["heads"], meta["window"], dilation=meta["dilation"], bias_table=True, **options
    ).double()
    weights = {k.removeprefix("weight."): v for k, v in numbers.items() if k.startswith("weight.")}
    layer.load_state_dict(weights, strict=True)
    return layer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["module_w5_d1", "module_w3_d3_small_map"])
def test_the_module_is_the_official_one_with_all_its_gradients(case, backend):
    meta, numbers = load(case)
    layer = layer_of(meta, numbers, small_map="pad", backend=backend)
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, numbers["output.out"], **EXACT)
    (out * numbers["cotangent.out"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_input.x"], **EXACT)
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert sorted(gradients) == ["proj.bias", "proj.weight", "qkv.bias", "qkv.weight", "rpb"]
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, numbers[f"grad_weight.{name}"], **EXACT)


def test_in_float32_the_module_agrees_to_single_precision():
    meta, numbers = load("module_w5_d1")
    out = layer_of(meta, numbers).float()(numbers["input.x"].float())
    expected = numbers["output.out"]
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_small_map_is_refused_unless_padding_is_asked_for():
    meta, numbers = load("module_w3_d3_small_map")
    with pytest.raises(ValueError, match=r"needs 9 keys but axis 0 has 6"):
        layer_of(meta, numbers)(numbers["input.x"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["na1d_w5_rpb", "na2d_w3_d2_rpb"])
def test_attend_is_the_two_official_primitives_with_the_bias_gradient(case, backend):
    meta, numbers = load(case)
    leaves = {name: numbers[f"input.{name}"].requires_grad_() for name in ("q", "k", "v", "rpb")}
    q, k, v = (leaves[name].movedim(1, -2) for name in ("q", "k", "v"))
    pattern = windeye.Neighborhood(meta["window"], dilation=meta["dilation"])
    out, lse = windeye.attend(q, k, v, pattern, bias=leaves["rpb"], backend=backend, return_lse=True)
    out = out.movedim(-2, 1)
    torch.testing.assert_close(out, numbers["output.out"], **EXACT)
    torch.testing.assert_close(lse.movedim(-1, 1), numbers["output.logits"].logsumexp(-1), **EXACT)
    gradients = torch.autograd.grad((out * numbers["cotangent.out"]).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(gradient, numbers[f"grad_input.{name}"], **EXACT)
