"""Gated lightning attention, its norm, its positions and its channel mixer against the official code."""

import pytest
import torch

from golden import load, same, under
from windeye import decay
from windeye.nn import GatedLinearUnit, LearnedRotary, LightningAttention, SimpleRMSNorm

PAPER = "lightning-attention"


def gradients(out, cotangent, leaves):
    return torch.autograd.grad((out * cotangent).sum(), leaves)


def test_the_norm_has_no_parameters_and_its_gradient_is_the_official_one():
    _, numbers = load(PAPER, "parts_norm_lrpe_sglu")
    x = numbers["input.norm_x"].requires_grad_()
    norm = SimpleRMSNorm(x.shape[-1])
    assert list(norm.parameters()) == []
    out = norm(x)
    same(out, numbers["output.norm_y"])
    same(gradients(out, numbers["input.norm_dy"], [x])[0], numbers["grad_input.norm_x"])


def test_the_norm_of_small_vectors_shows_its_epsilon():
    _, numbers = load(PAPER, "parts_norm_lrpe_sglu")
    x = numbers["input.norm_small_x"]
    same(SimpleRMSNorm(x.shape[-1])(x), numbers["output.norm_small_y"])


def test_the_norm_does_not_see_the_scale_of_its_input():
    x = torch.randn(3, 8, dtype=torch.float64)
    torch.testing.assert_close(SimpleRMSNorm(8)(1e4 * x), SimpleRMSNorm(8)(x), rtol=1e-5, atol=0)
    assert torch.autograd.gradcheck(SimpleRMSNorm(8), x.requires_grad_())


def test_learned_rotary_positions_are_the_official_ones_with_all_gradients():
    _, numbers = load(PAPER, "parts_norm_lrpe_sglu")
    x = numbers["input.lrpe_x"].requires_grad_()
    lrpe = LearnedRotary(3, 8).double()
    torch.testing.assert_close(lrpe.theta.detach(), numbers["weight.lrpe.theta_initial"], rtol=1e-6, atol=0)
    lrpe.load_state_dict({"theta": numbers["weight.lrpe.theta"]})
    here = torch.arange(x.shape[2])[None]
    out = lrpe(x.transpose(1, 2), here).transpose(1, 2)
    same(out, numbers["output.lrpe_y"])
    same(lrpe(x.transpose(1, 2), here + 6).transpose(1, 2), numbers["output.lrpe_y_offset6"])
    of_x, of_theta = gradients(out, numbers["input.lrpe_dy"], [x, lrpe.theta])
    same(of_x, numbers["grad_input.lrpe_x"])
    same(of_theta, numbers["grad_weight.lrpe.theta"])


def test_learned_rotary_products_are_cosines_of_the_distance():
    lrpe = LearnedRotary(1, 5).double()
    q, k = torch.randn(2, 1, 9, 1, 5, dtype=torch.float64).unbind(0)
    where = torch.arange(9)[None]
    products = torch.einsum("bthf,bshf->ts", lrpe(q, where), lrpe(k, where))
    distance = where.T - where
    expected = (q[0, :, 0, None] * k[0, None, :, 0] * (lrpe.theta[0, 0] * distance[..., None]).cos()).sum(-1)
    same(products, expected)
    torch.nn.init.zeros_(lrpe.theta)
    same(torch.einsum("bthf,bshf->ts", lrpe(q, where), lrpe(k, where)), q[0, :, 0] @ k[0, :, 0].T)


def test_the_channel_mixer_is_sglu():
    _, numbers = load(PAPER, "parts_norm_lrpe_sglu")
    x = numbers["input.sglu_x"].requires_grad_()
    w = under("weight.sglu.", numbers)
    glu = GatedLinearUnit(10, 20, activation="none").double()
    glu.load_state_dict(
        {"in_proj.weight": torch.cat((w["l1.weight"], w["l2.weight"])), "out_proj.weight": w["l3.weight"]}
    )
    out = glu(x)
    same(out, numbers["output.sglu_y"])
    same(gradients(out, numbers["input.sglu_dy"], [x])[0], numbers["grad_input.sglu_x"])


@pytest.mark.parametrize("case", ["block_no_lrpe", "block_lrpe_padded"])
def test_a_block_is_the_official_one_with_all_gradients(case):
    """Left padding included: positions count from another place there, but only distances matter."""
    meta, numbers = load(PAPER, case)
    config, w = meta["config"], under("weight.", numbers)
    mixer = LightningAttention(config["hidden"], config["heads"], numbers["input.rates"], lrpe=config["lrpe"]).double()
    mixer.load_state_dict(under("token_mixer.", w))
    glu = GatedLinearUnit(config["hidden"], config["glu_width"], activation="none").double()
    rows = torch.cat((w["channel_mixer.l1.weight"], w["channel_mixer.l2.weight"]))
    glu.load_state_dict({"in_proj.weight": rows, "out_proj.weight": w["channel_mixer.l3.weight"]})
    norm = SimpleRMSNorm(config["hidden"])
    padding = 1 - numbers["input.padding_mask"] if config["left_padding"] else None

    x = numbers["input.x"].requires_grad_()
    mixed = mixer(norm(x), padding=None if padding is None else padding.bool())
    same(mixed, numbers["output.token_mixer_of_norm_x"])
    out = x + mixed
    out = out + glu(norm(out))
    same(out, numbers["output.y"])
    names = [*mixer.state_dict(), "in_proj.weight", "out_proj.weight of glu"]
    of_x, *of_weights = gradients(out, numbers["input.do"], [x, *mixer.parameters(), *glu.parameters()])
    same(of_x, numbers["grad_input.x"])
    found = dict(zip(names, of_weights, strict=True))
    for name in mixer.state_dict():
        same(found[name], numbers[f"grad_weight.token_mixer.{name}"])
    of_value, of_gate = found["in_proj.weight"].chunk(2)
    same(of_value, numbers["grad_weight.channel_mixer.l1.weight"])
    same(of_gate, numbers["grad_weight.channel_mixer.l2.weight"])
    same(found["out_proj.weight of glu"], numbers["grad_weight.channel_mixer.l3.weight"])


def test_the_example_module_of_the_kernels_repository_is_a_variant():
    meta, numbers = load(PAPER, "example_module_lowrank_gate")
    config, w = meta["config"], under("weight.", numbers)
    layer = LightningAttention(
        config["embed_dim"], config["heads"], w["slope_rate"].flatten(), activate_value=True, norm="layer",
        norm_eps=1e-5, gate="lowrank_sigmoid",
    ).double()  # fmt: skip
    ours = {
        "qkvu_proj.weight": torch.cat([w[f"{n}_proj.weight"] for n in "qkv"]),
        "out_proj.weight": w["o_proj.weight"],
        "norm.weight": w["norm.weight"],
        "norm.bias": w["norm.bias"],
        "gate.0.weight": w["output_gate.0.weight"],
        "gate.1.weight": w["output_gate.1.weight"],
    }
    layer.load_state_dict(ours)
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    # The decay mask of the official module is computed in float32.
    torch.testing.assert_close(out, numbers["output.y"], rtol=1e-6, atol=1e-7)
    of_x, of_qkv = gradients(out, numbers["input.do"], [x, layer.qkvu_proj.weight])
    torch.testing.assert_close(of_x, numbers["grad_input.x"], rtol=1e-5, atol=1e-6)
    expected = torch.cat([numbers[f"grad_weight.{n}_proj.weight"] for n in "qkv"])
    torch.testing.assert_close(of_qkv, expected, rtol=1e-5, atol=1e-6)


def test_without_decay_it_is_plain_linear_attention_and_with_much_decay_only_the_token_itself_counts():
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    layer = LightningAttention(12, 3, rates=None, gate="none", norm="none").double()
    q, k, v = (t.unflatten(-1, (3, 4)) for t in layer.qkvu_proj(x).chunk(3, dim=-1))
    weights = torch.einsum("bthd,bshd->bhts", q.sigmoid() * q, k.sigmoid() * k)
    everything = torch.einsum("bhts,bshe->bthe", weights.tril(), v).flatten(-2)
    same(layer(x), layer.out_proj(everything))
    layer.rates = (0.0,) * 3
    same(layer(x), layer.out_proj(everything))
    layer.rates = (1e4,) * 3
    own = torch.einsum("bhtt,bthe->bthe", weights, v).flatten(-2)
    same(layer(x), layer.out_proj(own))


def test_the_rates_keep_their_bits_in_any_type():
    rates = decay.tnl_rates(4, layer=1, layers=24)
    layer = LightningAttention(16, 4, rates).bfloat16()
    assert torch.equal(torch.tensor(layer.rates, dtype=torch.float64), rates)
    assert layer(torch.randn(1, 5, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, r"hidden_dim 12 must be a multiple of heads 5"),
        ({"rates": [0.1]}, r"rates must be one per head, 3, got 1"),
        ({"rates": [0.1, -1.0, 0.0]}, r"rates must be at least 0 .*got \[0.1, -1.0, 0.0\]"),
        ({"gate": "relu"}, r"gate must be one of linear, lowrank_sigmoid, none, got 'relu'"),
        ({"norm": "batch"}, r"norm must be one of simple_rms, rms, layer, none, got 'batch'"),
        ({"activation": "gelu"}, r"activation must be one of silu, 1\+elu, sigmoid, none, got 'gelu'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LightningAttention(**({"dim": 12, "heads": 3, "rates": None} | options))
