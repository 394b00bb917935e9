"""HiLo: what it is in special cases, how it splits heads, what padding does, and the official numbers."""

import pytest
import torch

from golden import load, same, under
from windeye.nn.mixers import FullMixer, HiLoMixer, WindowMixer, as_sequence
from windeye.nn.mixers.plan import multiply_adds

EXACT = {"rtol": 1e-10, "atol": 1e-11}
DIM, HEADS = 12, 4
OFFICIAL = {"hi_qkv": "h_qkv", "hi_proj": "h_proj", "lo_q": "l_q", "lo_kv": "l_kv", "lo_proj": "l_proj"}


def a_map(*size):
    return torch.randn(2, *size, DIM, dtype=torch.float64)


def hilo(*args, **options):
    return HiLoMixer(DIM, HEADS, *args, **options).double()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_windows_of_one_token_are_full_attention_whatever_alpha(alpha):
    layer, full, x = hilo(1, alpha), FullMixer(DIM, HEADS).double(), a_map(5, 7)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            joint = torch.cat([getattr(part, kind) for part in (layer.lo_q, layer.lo_kv)])
            getattr(full.qkv, kind).copy_(joint)
            getattr(full.proj, kind).copy_(getattr(layer.lo_proj, kind))
    torch.testing.assert_close(layer(x), full(x), **EXACT)


@pytest.mark.parametrize("pad", [False, True])
def test_no_low_heads_are_attention_inside_windows(pad):
    layer, x = hilo(3, 0.0, pad_input=pad), a_map(8, 10)
    window = WindowMixer(DIM, HEADS, 3, bias_table=False, pad_input=pad).double()
    window.qkv.load_state_dict(layer.hi_qkv.state_dict())
    window.proj.load_state_dict(layer.hi_proj.state_dict())
    torch.testing.assert_close(layer(x), window(x), **EXACT)


def test_one_window_and_low_heads_alone_give_the_value_of_the_mean_token():
    layer, x = hilo(6, 1.0), a_map(6, 6)
    value = layer.lo_kv(x.mean(dim=(1, 2), keepdim=True))[..., DIM:]
    torch.testing.assert_close(layer(x), layer.lo_proj(value).expand_as(x), **EXACT)


def test_means_of_equal_tokens_lose_nothing():
    """Every key stands for as many equal tokens: the softmax over tokens is the one over windows."""
    layer, full = hilo(2, 1.0), hilo(1, 1.0)
    full.load_state_dict(layer.state_dict())
    x = a_map(3, 4).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    torch.testing.assert_close(layer(x), full(x), **EXACT)


@pytest.mark.parametrize(
    ("heads", "alpha", "high", "low"),
    [(12, 0.0, 12, 0), (12, 0.1, 11, 1), (12, 0.5, 6, 6), (12, 0.6, 5, 7), (12, 0.9, 2, 10), (12, 1.0, 0, 12),
     (5, 0.9, 1, 4), (4, 0.1, 4, 0), (16, 0.9, 2, 14)],
)  # fmt: skip
def test_the_split_cuts_off_what_is_no_whole_head(heads, alpha, high, low):
    layer = HiLoMixer(heads * 4, heads, 2, alpha)
    assert (layer.high, layer.low) == (high, low)
    names = {name.split(".")[0] for name in layer.state_dict()}
    assert names == {*(("hi_qkv", "hi_proj") if high else ()), *(("lo_q", "lo_kv", "lo_proj") if low else ())}


def test_the_split_may_be_the_nearest():
    assert HiLoMixer(48, 12, nearest_split=True).low == 11


def test_high_heads_come_first():
    layer, x = hilo(2, 0.5), a_map(4, 6)
    high, low = layer(x).chunk(2, dim=-1)
    torch.nn.init.zeros_(layer.lo_proj.weight)
    assert torch.equal(layer(x)[..., : DIM // 2], high)
    assert not torch.equal(layer(x)[..., DIM // 2 :], low)


def test_padding_that_is_seen_is_zeros_at_the_right_and_bottom():
    layer, x = hilo(2, 0.5, pad_input=True), a_map(15, 13)
    whole = torch.zeros(2, 16, 14, DIM, dtype=torch.float64)
    whole[:, :15, :13] = x
    torch.testing.assert_close(layer(x), layer(whole)[:, :15, :13], **EXACT)


def test_padding_that_is_not_seen_leaves_whole_windows_alone():
    """Tokens inside of the rim attend to the same windows; only the rim's own mean differs from a padded one."""
    layer, x = hilo(2, 0.5), a_map(7, 8)
    whole = torch.cat((x, x[:, -1:]), dim=1)
    near, far = layer(x), layer(whole)[:, :7]
    torch.testing.assert_close(near, far, **EXACT)  # a row twice has the mean of the row
    assert not torch.allclose(near, hilo_like(layer, pad_input=True)(x))


def hilo_like(layer, **options):
    other = hilo(layer.window, layer.alpha, **options)
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize(
    ("dim", "alpha", "bias", "flops", "within", "parameters"),
    [(384, 0.5, False, 83_467_776, 0, 516_480), (768, 0.9, True, 298_296_000, 500, 2_198_528)],
)
def test_costs_are_the_published_ones(dim, alpha, bias, flops, within, parameters):
    """Spec: 14 x 14 tokens, 12 heads, windows of 2 (83,467,776, and 298.296 million to the digits given)."""
    layer = HiLoMixer(dim, 12, 2, alpha, qkv_bias=bias)
    assert sum(p.numel() for p in layer.parameters()) == parameters
    n, high, low = 196, layer.high * layer.head_dim, layer.low * layer.head_dim
    plans = layer.plans(torch.zeros(1, 14, 14, dim))
    projections = n * dim * 3 * high + n * high**2 + n * dim * low + n // 4 * dim * 2 * low + n * low**2
    assert sum(map(multiply_adds, plans)) == 2 * 4 * n * high + 2 * n * (n // 4) * low
    assert abs(projections + sum(map(multiply_adds, plans)) - flops) <= within


@pytest.mark.parametrize(
    "case", ["attn_s1_global", "attn_s2_alpha05", "attn_s2_alpha09_trunc", "attn_s3_alpha01_hifi_only"]
)
def test_the_official_layer(case):
    meta, numbers = load("hilo", case)
    layer = HiLoMixer(meta["dim"], meta["heads"], meta["window"], meta["alpha"], qkv_bias=meta["qkv_bias"]).double()
    assert (layer.high, layer.low) == (meta["hifi_heads"], meta["lofi_heads"])

    def theirs(name):
        part, kind = name.split(".")
        return f"{OFFICIAL[part]}.{kind}"

    weights = under("weight.", numbers)
    assert {theirs(name) for name in layer.state_dict()} == weights.keys()
    layer.load_state_dict({name: weights[theirs(name)] for name in layer.state_dict()})
    x = numbers["input.x"].requires_grad_()
    out = as_sequence(layer)(x, meta["H"], meta["W"])
    same(out, numbers["output.out"])
    (out * numbers["cotangent.out"]).sum().backward()
    same(x.grad, numbers["grad_input.x"])
    for name, parameter in layer.named_parameters():
        same(parameter.grad, numbers[f"grad_weight.{theirs(name)}"])
    out = as_sequence(layer.float())(x.detach().float(), meta["H"], meta["W"])
    assert (out - numbers["output.out"]).abs().max() <= 1e-5 * numbers["output.out"].abs().max()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 1.1}, r"alpha must be in \[0, 1\], got 1.1"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], got -0.1"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"heads": 5}, "dim 12 must be a multiple of heads 5"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        HiLoMixer(DIM, **{"heads": HEADS} | options)
