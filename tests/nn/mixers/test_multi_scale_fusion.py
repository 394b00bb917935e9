"""Multi-scale fusion: special cases, what each branch reaches, and maps of other sizes."""

import pytest
import torch
import torch.nn.functional as F

from windeye.models.vision import Block, ConvSpec, StageSpec
from windeye.nn.mixers import FullMixer, GlobalDownSampling, MultiScaleFusionMixer, MultiScaleFusionSpec, WindowMixer
from windeye.nn.mixers.plan import pairs
from windeye.sites import watch
from windeye.tokens import pool, resize

EXACT = {"rtol": 1e-10, "atol": 1e-11}
DIM, HEADS = 12, 3


def a_map(*size, dim=DIM):
    return torch.randn(2, *size, dim, dtype=torch.float64)


def fusion(size, ratio=0.5, **options):
    layer = MultiScaleFusionMixer(DIM, HEADS, size, ratio, **{"window": 3} | options).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def sums(layer, weights):
    """With these weights over positions and no bias."""
    with torch.no_grad():
        layer.weight.copy_(weights.reshape(layer.weight.shape))
        layer.bias.zero_()
    return layer


def cross_attention(layer, query, tokens):
    """Written out; tokens are [batch, count, dim]."""
    query = layer.query(query).flatten(1, 2).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in layer.key_value(tokens).chunk(2, dim=-1))
    out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return layer.proj(out)


@pytest.mark.parametrize("permuted", [False, True])
def test_all_tokens_as_they_are_or_in_any_order_are_cross_attention(permuted):
    layer, x = fusion((4, 5), 1.0, position="none"), a_map(4, 5)
    order = torch.randperm(20) if permuted else torch.arange(20)
    sums(layer.tokens, torch.eye(20)[order])
    local = x + layer.local(x)
    expected = local + cross_attention(layer, local, layer.tokens.norm(x).flatten(1, 2)).unflatten(1, (4, 5))
    torch.testing.assert_close(x + layer(x), expected, **EXACT)


@pytest.mark.parametrize(("ratio", "cell"), [(1.0, (1, 1)), (0.5, (1, 2)), (0.25, (2, 2)), (0.125, (2, 4))])
def test_sums_start_as_means_over_cells(ratio, cell):
    x, layer = a_map(4, 8), GlobalDownSampling(DIM, (4, 8), ratio, position="none").double()
    means = pool(layer.norm(x), cell)
    found = layer(x)
    assert found.shape == means.shape
    noise = found - means
    assert 0 < noise.square().mean().sqrt() < 0.04
    eye = torch.eye(32, dtype=torch.float64).reshape(32, 4, 8, 1)
    sums(layer, pool(eye, cell).permute(1, 2, 3, 0).flatten(0, 2))
    torch.testing.assert_close(layer(x), means, **EXACT)


def test_a_constant_map_has_constant_tokens_and_is_attended_evenly():
    x = torch.randn(2, 1, 1, DIM, dtype=torch.float64).expand(2, 6, 8, DIM)
    layer = fusion((6, 8))
    tokens = sums(layer.tokens, torch.full((24, 48), 1 / 48))(x)
    torch.testing.assert_close(tokens, tokens[:, :1, :1].expand_as(tokens), **EXACT)
    dense = layer.to_dense(x)
    torch.testing.assert_close(dense, torch.full_like(dense, 1 / 24), **EXACT)
    value = layer.key_value(tokens[:, 0, 0])[:, DIM:].unflatten(-1, (HEADS, -1))
    torch.testing.assert_close(layer.attention(x), value[:, None, None].expand(2, 6, 8, -1, -1), **EXACT)


def test_the_local_branch_is_the_window_attention_and_as_wide_as_the_map_full_attention():
    x, layer = a_map(5, 5), fusion(5, window=5, bias_table=False)
    window = WindowMixer(DIM, HEADS, 5, bias_table=False).double()
    full = FullMixer(DIM, HEADS).double()
    near = layer.window(layer.norm1(x))
    for same in (window, full):
        same.load_state_dict(layer.window.state_dict())
        torch.testing.assert_close(same(layer.norm1(x)), near, **EXACT)
    assert torch.equal(layer.local(x), near + layer.feed_forward(layer.norm2(x + near)))


def test_without_fusion_and_second_feed_forward_part_a_block_is_its_local_branch():
    stage = StageSpec(DIM, HEADS, ConvSpec(), ())
    block = Block(stage, MultiScaleFusionSpec((4, 6), window=3), 0.0).double()
    assert block.norm1 is None
    for last in (block.mixer.proj, block.feed_forward.fc2):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    x = a_map(4, 6)
    torch.testing.assert_close(block(x), x + block.mixer.local(x), **EXACT)


@pytest.mark.parametrize(
    ("size", "ratio", "grid"),
    [
        ((8, 6), 0.5, (8, 3)),
        ((8, 6), 0.25, (4, 3)),
        ((8, 6), 1.0, (8, 6)),
        ((7, 7), 0.5, (7, 4)),
        ((5, 9), 0.25, (3, 5)),
        ((3, 10), 0.125, (2, 3)),
        ((1, 1), 0.1, (1, 1)),
    ],
)
def test_tokens_are_a_grid_of_the_ratio_rounded_up(size, ratio, grid):
    layer = GlobalDownSampling(DIM, size, ratio)
    assert layer(torch.randn(2, *size, DIM)).shape == (2, *grid, DIM)
    tokens, positions = grid[0] * grid[1], size[0] * size[1]
    assert layer.weight.numel() + layer.bias.numel() == positions * tokens + tokens
    assert tokens >= ratio * positions


@pytest.mark.parametrize("fused", [False, True])
def test_fusion_reaches_every_token_and_the_local_branch_its_window(fused):
    layer, x = fusion((6, 9)), a_map(6, 9).requires_grad_()
    if not fused:
        torch.nn.init.zeros_(layer.proj.weight)
    (gradient,) = torch.autograd.grad(layer(x)[:, 1, 4].sum(), x)
    reached = gradient.abs().amax((0, 3)) > 1e-12
    window = torch.zeros(6, 9, dtype=torch.bool)
    window[:3, 3:6] = True
    assert torch.equal(reached, torch.ones_like(window) if fused else window)


def test_windows_of_the_fusion_see_their_own_part_alone():
    layer, x = fusion((8, 8), 0.25, fuse_window=4), a_map(8, 8)
    dense = layer.to_dense(x).unflatten(-1, (4, 4)).unflatten(2, (8, 8))
    seen = (dense > 0).all(dim=(0, 1))
    for y in range(8):
        for z in range(8):
            own = torch.zeros(4, 4, dtype=torch.bool)
            own[2 * (y // 4) : 2 * (y // 4) + 2, 2 * (z // 4) : 2 * (z // 4) + 2] = True
            assert torch.equal(seen[y, z], own)
    (plan,), (whole,) = layer.plans(x), fusion((8, 8), 0.25).plans(x)
    assert (pairs(plan), pairs(whole)) == (64 * 4, 64 * 16)
    whole = fusion((8, 8), 0.25, fuse_window=8)
    whole.load_state_dict(layer.state_dict())
    everywhere = fusion((8, 8), 0.25)
    everywhere.load_state_dict(layer.state_dict())
    torch.testing.assert_close(whole(x), everywhere(x), **EXACT)


def test_other_sizes_are_refused_by_both_names():
    layer = fusion((4, 6))
    with pytest.raises(
        ValueError, match='x has 5 x 6 tokens, but the weights over positions are for 4 x 6; resize="int'
    ):
        layer(a_map(5, 6))
    assert layer.size == (4, 6)


@pytest.mark.parametrize("size", [(8, 6), (16, 12), (5, 9), (3, 4), (1, 1)])
def test_a_constant_map_of_any_size_stays_the_same_constant(size):
    layer = GlobalDownSampling(DIM, (8, 6), resize="interpolate").double()
    sums(layer, torch.rand(24, 48, dtype=torch.float64).softmax(-1))
    x = torch.randn(1, 1, 1, DIM, dtype=torch.float64).expand(1, *size, DIM)
    tokens = layer(x)
    assert tokens.shape[1:3] == layer.grid(*size)
    expected = (layer.norm(x) + x)[:, :1, :1].expand_as(tokens)
    torch.testing.assert_close(tokens, expected, **EXACT)


def test_a_larger_smooth_map_gives_the_larger_result():
    layer = MultiScaleFusionMixer(DIM, HEADS, 8, window=8, resize="interpolate").double()
    larger = MultiScaleFusionMixer(DIM, HEADS, 8, window=16, resize="interpolate").double()
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if name == "window.bias_table":
            table = F.interpolate(parameter[None], (31, 31), mode="bilinear", align_corners=True)[0]
        with torch.no_grad():
            larger.get_parameter(name).copy_(table if name == "window.bias_table" else parameter)
    small = resize(a_map(3, 3), (8, 8))
    large = resize(small, (16, 16))
    for ours, theirs in (
        (layer.tokens(large), resize(layer.tokens(small), (16, 8))),
        (larger(large), resize(layer(small), (16, 16))),
    ):
        assert torch.corrcoef(torch.stack((ours.flatten(), theirs.flatten())))[0, 1] > 0.95


def test_resizing_the_map_is_interpolating_the_weights_in_both_pairs_of_axes():
    """Away from the rim, where half of a tent lies outside."""
    layer = GlobalDownSampling(DIM, (5, 6), position="none", norm=False, resize="interpolate").double()
    torch.nn.init.normal_(layer.weight)
    inside = torch.zeros(10, 12, 1)
    inside[3:-3, 3:-3] = 1.0
    x = a_map(10, 12) * inside
    weight = F.interpolate(layer.weight.flatten(0, 1)[None], (10, 12), mode="bilinear")[0].unflatten(0, (5, 3))
    weight = F.interpolate(weight.permute(2, 3, 0, 1), (10, 6), mode="bilinear").permute(2, 3, 0, 1)
    torch.testing.assert_close(layer(x), torch.einsum("abyx,nyxc->nabc", weight / 4, x), **EXACT)


def test_gradients_are_those_of_differences():
    layer = MultiScaleFusionMixer(4, 2, (3, 4), window=2, expansion=1.0).double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_it_is_deterministic_and_finite_in_bfloat16():
    layer, x = MultiScaleFusionMixer(DIM, HEADS, 8, resize="interpolate").bfloat16(), a_map(7, 9).bfloat16()
    assert layer(x).isfinite().all()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\], got 0.0"),
        ({"ratio": 1.5}, r"ratio must be in \(0, 1\], got 1.5"),
        ({"size": (0, 4)}, "size must be at least 1, got 0"),
        ({"position": "sine"}, "position must be one of bilinear, embed, none, got 'sine'"),
        ({"init": "eye"}, "init must be one of means, trunc, got 'eye'"),
        ({"resize": "crop"}, "resize must be one of None, interpolate, got 'crop'"),
        ({"fuse_window": 7}, "fuse_window 7 holds 7 x 3.5 global tokens at ratio 0.5; it must hold whole ones"),
        ({"fuse_window": 0}, "fuse_window must be at least 1, got 0"),
        ({"heads": 5}, "dim 12 must be a multiple of heads 5"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        MultiScaleFusionMixer(DIM, **{"heads": HEADS} | options)


def test_both_attentions_are_watched_as_layers():
    layer, x = fusion((6, 8)).eval(), a_map(6, 8)
    with watch(layer, ["entropy"]) as seen:
        layer(x)
    for number, (mixer, of) in enumerate(((layer, x), (layer.window, layer.norm1(x)))):
        entropy = torch.special.entr(mixer.to_dense(of)).sum(-1).transpose(1, 2)
        torch.testing.assert_close(seen["entropy", number], entropy)
