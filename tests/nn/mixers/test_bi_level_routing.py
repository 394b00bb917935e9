"""Bi-level routing: which regions see which, what padding does, special cases, and the official numbers."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from golden import load, same, under
from windeye import Routed
from windeye.nn.mixers import BiLevelRoutingMixer, FullMixer
from windeye.nn.mixers.plan import attended, pairs

EXACT = {"rtol": 1e-10, "atol": 1e-11}
DIM, HEADS = 12, 3
OFFICIAL = {
    "qkv": ("qkv.qkv", "qkv_linear"),
    "proj": ("wo", "output_linear"),
    "local": ("lepe",),
    "router": ("router.emb",),
}


def a_map(*size, dim=DIM):
    return torch.randn(2, *size, dim, dtype=torch.float64)


def routing(regions, keep, **options):
    return BiLevelRoutingMixer(DIM, HEADS, regions, keep, **options).double()


@pytest.mark.parametrize("size", [(6, 9), (7, 10), (2, 2)])
def test_all_regions_are_full_attention_and_the_convolution_of_values(size):
    """With BiFormer's flat softmax: heads are scaled as if they were as wide as all of them."""
    mixer, x = routing(3, 9), a_map(*size)
    full = FullMixer(DIM, HEADS, local=5).double()
    weights = mixer.state_dict()
    for kind in ("weight", "bias"):
        weights[f"qkv.{kind}"] = weights[f"qkv.{kind}"].clone()
        weights[f"qkv.{kind}"][:DIM] *= HEADS**-0.5
    full.load_state_dict(weights)
    torch.testing.assert_close(mixer(x), full(x), **EXACT)


def test_the_order_of_kept_regions_does_not_matter():
    mixer, x = routing(2, 4), a_map(4, 6)
    (plan,) = mixer.plans(x)
    shuffled = Routed(torch.stack([torch.randperm(4) for _ in range(4)])[None], (2, 2))
    torch.testing.assert_close(attended(replace(plan, relation=shuffled)), attended(plan), **EXACT)


def test_regions_of_one_token_keep_the_best_tokens():
    mixer, x = routing((4, 5), 3, local=None), a_map(4, 5)
    query, key, value = mixer.qkv(x).flatten(1, 2).chunk(3, dim=-1)
    kept = (query @ key.transpose(1, 2)).topk(3, dim=-1).indices
    mask = torch.zeros(2, 20, 20, dtype=torch.bool).scatter(-1, kept, True)
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=DIM**-0.5)
    torch.testing.assert_close(mixer.attention(x).flatten(1, 2), out.transpose(1, 2), **EXACT)


def matching():
    """Four regions of 2 x 2 tokens; the queries of each match the keys of the next alone."""
    mixer = routing(2, 1, local=None)
    with torch.no_grad():
        mixer.qkv.weight.zero_()
        mixer.qkv.bias.zero_()
        for channel in range(4):
            mixer.qkv.weight[(channel + 1) % 4, channel] = 5.0
            mixer.qkv.weight[DIM + channel, channel] = 1.0
        mixer.qkv.weight[2 * DIM :].normal_()
    x = 0.1 * torch.randn(1, 4, 4, DIM, dtype=torch.float64)
    for region, (y, z) in enumerate(product((0, 2), (0, 2))):
        x[:, y : y + 2, z : z + 2, region] += 1.0
    return mixer, x


def test_regions_find_the_ones_that_match_and_see_nothing_else():
    mixer, x = matching()
    assert mixer.routes(x)[0, :, 0].tolist() == [1, 2, 3, 0]
    plain = mixer(x)[:, :2, :2]
    for y, z, changes in ((2, 0, False), (2, 2, False), (0, 2, True)):
        other = x.clone()
        other[:, y : y + 2, z : z + 2, 6:] += torch.randn(1, 2, 2, DIM - 6, dtype=torch.float64)
        assert torch.equal(mixer.routes(other), mixer.routes(x))
        assert torch.equal(mixer(other)[:, :2, :2], plain) != changes


def test_moving_regions_moves_the_result():
    mixer, x = routing(2, 2, local=None), a_map(4, 6)
    moved = x.roll((2, 3), dims=(1, 2))
    torch.testing.assert_close(mixer(moved), mixer(x).roll((2, 3), dims=(1, 2)), **EXACT)


def test_the_choice_itself_has_no_gradient_unless_it_is_soft():
    """With one kept region of one token, nothing but the choice depends on the queries."""
    x = a_map(3, 4)
    for soft in (False, True):
        mixer = routing((3, 4), 1 if not soft else 2, local=None, soft=soft)
        mixer(x).square().sum().backward()
        gradient = mixer.qkv.weight.grad[:DIM].abs().max()
        assert (gradient > 1e-12) == soft
    router = routing((3, 4), 2, soft=True, router=True)
    router(x).square().sum().backward()
    assert router.router.weight.grad.abs().max() > 0


@pytest.mark.parametrize("size", [(7, 10), (5, 4), (1, 3)])
def test_padding_that_is_not_seen_could_be_anything(size):
    """Attention to smaller regions at the rim, by a loop over regions."""
    mixer, x = routing((3, 2), 2, local=None), a_map(*size)
    (rows, columns), (tall, wide) = mixer.cut(*size)
    slices = [
        (slice(tall * r, tall * r + tall), slice(wide * c, wide * c + wide))
        for r in range(rows)
        for c in range(columns)
    ]
    query, key, value = mixer.qkv(x).chunk(3, dim=-1)
    out = torch.zeros_like(x)
    for b, (number, place) in product(range(2), enumerate(slices)):
        kept = [slices[i] for i in mixer.routes(x)[b, number].tolist()]
        near, far = (torch.cat([t[b][p].flatten(0, 1) for p in kept]) for t in (key, value))
        parts = [t.unflatten(-1, (HEADS, -1)).transpose(0, 1) for t in (query[b][place].flatten(0, 1), near, far)]
        mixed = ((parts[0] @ parts[1].mT * DIM**-0.5).softmax(-1) @ parts[2]).transpose(0, 1).flatten(1)
        out[b][place] = mixed.reshape(x[b][place].shape)
    torch.testing.assert_close(mixer(x), mixer.proj(out), **EXACT)


def test_the_three_paddings_differ_only_where_sizes_do_not_divide():
    layers = [routing(3, 4, padding=mode) for mode in ("none", "input", "projected", "masked")]
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    x = a_map(6, 9)
    for layer in layers[1:]:
        torch.testing.assert_close(layer(x), layers[0](x), **EXACT)
    x = a_map(7, 11)
    results = [layer(x) for layer in layers[1:]]
    assert all(not torch.allclose(results[i], results[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert [layer.cut(7, 11) for layer in layers[1:]] == [((3, 3), (3, 4)), ((4, 4), (2, 3)), ((3, 3), (3, 4))]
    with pytest.raises(ValueError, match="x has 7 x 11 tokens, which 3 x 3 regions do not divide"):
        layers[0](x)


def test_pooled_keys_of_smooth_values_are_the_tokens():
    pooled, plain = routing(2, 3, pool=2), routing(2, 3)
    plain.load_state_dict(pooled.state_dict())
    x = a_map(2, 4).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    torch.testing.assert_close(pooled(x), plain(x), **EXACT)


@pytest.mark.parametrize(("size", "padding"), [((8, 8), "none"), ((7, 8), "input"), ((7, 7), "masked")])
def test_pooled_keys_keep_the_contract(size, padding):
    mixer, x = routing(2, 2, pool=2, padding=padding), a_map(*size)
    dense, positions = mixer.to_dense(x), mixer.positions(x)
    out = torch.einsum("bhqp,bphd->bqhd", dense, positions)
    torch.testing.assert_close(out, mixer.attention(x).flatten(1, 2), **EXACT)
    torch.testing.assert_close(dense.sum(-1), torch.ones_like(dense[..., 0]), **EXACT)


def test_pairs_are_counted_without_the_choice():
    mixer = routing(4, 3)
    (plan,) = mixer.plans(a_map(8, 12))
    assert pairs(plan) == 96 * 3 * 6 == plan.relation.bind((8, 12)).pairs() // 2


def test_large_logits_stay_finite_in_half_precision():
    mixer = BiLevelRoutingMixer(DIM, HEADS, 2, 2).half()
    assert mixer(1e4 * torch.randn(1, 4, 6, DIM, dtype=torch.float16).clamp(-1, 1)).isfinite().all()


SETTINGS = {
    "bra_s4_k3": {},
    "bra_autopad": {"padding": "input"},
    "bra_kvpool": {"local": None, "pool": 2},
    "bra_qkdim_soft_param": {"qk_dim": 8, "soft": True, "router": True, "local": 3},
    "nchw_s3_k2": {"padding": "projected"},
    "nchw_pad": {"padding": "projected"},
}


def official(numbers, kind, name):
    part, parameter = name.split(".")
    found = [numbers[key] for key in (f"{kind}.{their}.{parameter}" for their in OFFICIAL[part]) if key in numbers]
    (tensor,) = found
    return tensor


@pytest.mark.parametrize("case", SETTINGS)
def test_the_official_layers(case):
    meta, numbers = load("biformer", case)
    regions = meta.get("regions_per_side", meta.get("n_win"))
    layer = BiLevelRoutingMixer(meta["dim"], meta["heads"], regions, meta["topk"], **SETTINGS[case]).double()
    state = layer.state_dict()
    assert len(under("weight.", numbers)) == len(state)
    layer.load_state_dict({n: official(numbers, "weight", n).reshape(t.shape) for n, t in state.items()})
    x = numbers["input.x"].requires_grad_()
    channels_first = case.startswith("nchw")
    seen = x.permute(0, 2, 3, 1) if channels_first else x
    assert torch.equal(layer.routes(seen), numbers["output.routing_index"])
    out = layer(seen)
    out = out.permute(0, 3, 1, 2) if channels_first else out
    same(out, numbers["output.out"])
    (out * numbers["cotangent.out"]).sum().backward()
    same(x.grad, numbers["grad_input.x"])
    for name, parameter in layer.named_parameters():
        same(parameter.grad, official(numbers, "grad_weight", name).reshape(parameter.shape))
    low = layer.float()(seen.detach().float())
    low = low.permute(0, 3, 1, 2) if channels_first else low
    assert (low - numbers["output.out"]).abs().max() <= 1e-5 * numbers["output.out"].abs().max()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"keep": 10}, "keep must be at most the 3 x 3 = 9 regions, got 10"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"heads": 5}, "dim 12 must be a multiple of heads 5"),
        ({"qk_dim": 8}, "qk_dim 8 must be a multiple of heads 3"),
        ({"padding": "same"}, "padding must be one of none, input, projected, masked, got 'same'"),
        ({"router": True}, "router needs soft"),
        ({"local": 4}, "local must be odd, got 4"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        BiLevelRoutingMixer(DIM, **{"heads": HEADS, "regions": 3, "keep": 2} | options)


def test_cells_that_do_not_divide_a_region_are_named():
    with pytest.raises(ValueError, match="pool 2 does not divide regions of 3 x 2 tokens"):
        routing(2, 2, pool=2)(a_map(6, 4))


@pytest.mark.parametrize("source", ["values", "input"])
def test_full_attention_with_a_convolution_of_what(source):
    mixer, x = FullMixer(DIM, HEADS, local=3, local_on=source).double(), a_map(5, 6)
    of = x if source == "input" else mixer.qkv(x)[..., 2 * DIM :]
    near = mixer.local(of.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(mixer(x), mixer.proj(mixer.attention(x).flatten(-2) + near), **EXACT)
    with pytest.raises(ValueError, match="local_on must be one of values, input"):
        FullMixer(DIM, HEADS, local_on="keys")
