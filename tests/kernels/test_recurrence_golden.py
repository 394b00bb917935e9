"""Numbers of the official code: Lightning Attention-2, its authors' recurrent form, Based, and the slope tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import windeye
from windeye.kernels.native import instruction_sets
from windeye.kernels.recurrence.features import features

GOLDEN = Path(__file__).parents[1] / "golden"
NATIVE = pytest.param(
    ("cpu", "chunk"), marks=pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
)
FORMS = pytest.mark.parametrize(
    "form", [NATIVE, ("torch", "chunk"), ("torch", "parallel"), ("torch", "recurrent")], ids=str
)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def load(paper, case):
    with np.load(GOLDEN / paper / f"{case}.npz") as file:
        return json.loads(str(file["meta"])), {k: torch.from_numpy(file[k]) for k in file if k != "meta"}


def same(actual, expected, tolerance):
    assert (actual.double() - expected.double()).abs().max() <= tolerance * expected.abs().max()


@FORMS
@pytest.mark.parametrize("case", ["alibi_slopes_6heads_last_layer", "fast_decay_long"])
def test_lightning_attention_with_a_constant_decay_per_head(case, form):
    _, numbers = load("lightning-attention-2", case)
    leaves = [numbers[f"input.{name}"].requires_grad_() for name in "qkv"]
    q, k, v = (t.transpose(1, 2) for t in leaves)
    log_decay = -numbers["input.slopes"].flatten()
    out = windeye.linear_attention(q, k, v, log_decay=log_decay, backend=form[0], form=form[1]).transpose(1, 2)
    same(out, numbers["output.o"], 1e-5)
    grads = torch.autograd.grad((out * numbers["input.do"]).sum(), leaves)
    for name, grad in zip("qkv", grads, strict=True):
        same(grad, numbers[f"grad_input.{name}"], 1e-5)


@FORMS
@pytest.mark.parametrize("case", ["state_in_out", "packed_sequences", "scalar_decay_per_token"])
def test_states_packing_and_decay_per_token_with_all_gradients(case, form):
    _, numbers = load("lightning-attention-2", case)
    names = ("q", "k", "v", "log_decay", "initial_state")
    leaves = [numbers[f"input.{name}"].requires_grad_() for name in names]
    q, k, v, log_decay, initial_state = leaves
    out, state = windeye.linear_attention(
        q, k, v, log_decay=log_decay, initial_state=initial_state, return_state=True,
        cu_seqlens=numbers.get("input.cu_seqlens"), backend=form[0], form=form[1], chunk_size=8,
    )  # fmt: skip
    torch.testing.assert_close(out, numbers["output.o"], **EXACT)
    torch.testing.assert_close(state, numbers["output.final_state"], **EXACT)
    loss = (out * numbers["input.do"]).sum() + (state * numbers["input.dstate"]).sum()
    for name, grad in zip(names, torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(grad, numbers[f"grad_input.{name}"], **EXACT)


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_taylor_features_are_the_compact_ones_up_to_where_the_scale_is_put(width):
    _, numbers = load("based", "feature_maps")
    ours = features("taylor2", numbers[f"input.x_f{width}"] * width**-0.25)
    torch.testing.assert_close(ours, numbers[f"output.compact_f{width}"], **EXACT)


@FORMS
def test_based_layer_with_all_gradients_and_its_state(form):
    meta, numbers = load("based", "linear_attention")
    config = meta["config"]
    heads, width = config["heads"], config["feature_dim"]
    x = numbers["input.x"].requires_grad_()
    weights = {k.removeprefix("weight."): v.requires_grad_() for k, v in numbers.items() if k.startswith("weight.")}

    def layer(tokens, state=None):
        q, k, v = ((tokens @ weights[f"proj_{n}.weight"].T).unflatten(-1, (heads, -1)) for n in "qkv")
        out, state = windeye.linear_attention(
            q * width**-0.25, k * width**-0.25, v, feature_map="taylor2", normalize=True, initial_state=state,
            return_state=True, backend=form[0], form=form[1], chunk_size=8,
        )  # fmt: skip
        return out.flatten(-2) @ weights["out_proj.weight"].T, state

    out, state = layer(x)
    torch.testing.assert_close(out, numbers["output.y"], **EXACT)
    leaves = [x, *weights.values()]
    names = ["grad_input.x", *(f"grad_weight.{name}" for name in weights)]
    for name, grad in zip(names, torch.autograd.grad((out * numbers["input.do"]).sum(), leaves), strict=True):
        torch.testing.assert_close(grad, numbers[name], **EXACT)

    # The official state holds all products x_i x_j / sqrt 2, ours each once: compare what a query reads from it.
    probe = torch.randn(width, dtype=torch.float64)
    full = torch.cat([probe.new_ones(1), probe, torch.outer(probe, probe).flatten() / 2**0.5])
    read = features("taylor2", probe) @ state
    torch.testing.assert_close(read[..., :-1], (numbers["output.kv_state_final"] @ full)[:, :, 0], **EXACT)
    torch.testing.assert_close(read[..., -1:], (numbers["output.k_state_final"] @ full)[:, :, 0], **EXACT)

    prefill = config["prefill"]
    head, state = layer(x[:, :prefill])
    steps = [head]
    for i in range(prefill, x.shape[1]):
        step, state = layer(x[:, i : i + 1], state)
        steps.append(step)
    torch.testing.assert_close(torch.cat(steps, dim=1), numbers["output.y_prefill_then_steps"], **EXACT)


def test_slopes_and_layer_rates_are_the_published_ones():
    _, numbers = load("lightning-attention", "slope_tables")
    for name, table in numbers.items():
        kind, *rest = name.removeprefix("output.").split("_H")
        if kind == "alibi":
            ours = windeye.decay.alibi_slopes(int(rest[0]))
        else:
            heads, layers = map(int, rest[0].split("_L"))
            ours = torch.stack([windeye.decay.tnl_rates(heads, layer, layers) for layer in range(layers)])
        torch.testing.assert_close(ours, table, rtol=1e-6, atol=1e-11)
