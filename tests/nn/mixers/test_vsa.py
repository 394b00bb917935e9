"""Windows that move and stretch: what the numbers of the regression mean, and the official layers."""

import pytest
import torch

from golden import load, same, under
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, StageSpec
from windeye.models.vision.names import regression_of, swin_table
from windeye.nn.mixers import VSAMixer, VSASpec, WindowMixer, as_nchw, as_sequence
from windeye.ops import attend
from windeye.patterns import Blocks

DIM, HEADS = 12, 2
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def vsa(window=4, **options):
    layer = VSAMixer(DIM, HEADS, window, **options).double()
    torch.nn.init.normal_(layer.bias_table, std=0.5)
    return layer


def told(layer, *numbers):
    """With the same (ox, oy, sx, sy) for every head and window."""
    with torch.no_grad():
        layer.regress.bias.copy_(torch.tensor(numbers, dtype=torch.float64).repeat(layer.heads))
    return layer


def a_map(*size, batch=2):
    return torch.randn(batch, *size, DIM, dtype=torch.float64)


def window_like(layer, **options):
    other = WindowMixer(DIM, HEADS, layer.window, **options).double()
    other.load_state_dict({n: t for n, t in layer.state_dict().items() if not n.startswith("regress")})
    return other


@pytest.mark.parametrize("hide_padding", [True, False])
def test_it_starts_as_plain_windows(hide_padding):
    layer, x = vsa(hide_padding=hide_padding), a_map(8, 12)
    torch.testing.assert_close(layer(x), window_like(layer)(x), **EXACT)
    torch.testing.assert_close(layer.float()(x.float()), window_like(layer).float()(x.float()), rtol=0, atol=1e-5)


def test_hidden_padding_makes_windows_at_the_rim_smaller():
    layer, x = vsa((4, 3)), a_map(10, 13)
    torch.testing.assert_close(layer(x), window_like(layer)(x), **EXACT)
    seen = vsa((4, 3), hide_padding=False)
    seen.load_state_dict(layer.state_dict())
    rim, whole = seen(x), layer(x)
    torch.testing.assert_close(rim[:, :8, :12], whole[:, :8, :12], **EXACT)
    assert not torch.isclose(rim[:, 8:], whole[:, 8:]).all(dim=-1).any()


@pytest.mark.parametrize(("down", "across"), [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_an_offset_of_two_is_the_window_beside_but_for_the_unit(down, across):
    """2 n / (n - 1) moves by exactly a window, n the side of the padded map (vsa spec)."""
    height, width = 12, 16
    layer, x = vsa(), a_map(height, width)
    told(layer, 2 * across * width / (width - 1), 2 * down * height / (height - 1), 0.0, 0.0)
    moved = x.roll((-4 * down, -4 * across), dims=(1, 2))
    (plan,), plain = layer.plans(x), vsa()
    plain.load_state_dict(layer.state_dict())
    told(plain, 0, 0, 0, 0)
    keys = plain.plans(moved)[0]
    inside = [r * 4 + c for r in range(3) for c in range(4) if 0 <= r + down < 3 and 0 <= c + across < 4]
    ours, theirs = plan.relation.resample(plan.key), keys.relation.resample(keys.key)
    torch.testing.assert_close(ours[:, inside], theirs[:, inside], **EXACT)
    outside = [n for n in range(12) if n not in inside]
    assert ours[:, outside].abs().max() < 1e-12


def test_an_offset_of_two_alone_is_a_little_less_than_a_window():
    """w (n - 1) / n tokens (vsa spec)."""
    layer, x = vsa(), a_map(12, 16)
    here, there = (told(layer, ox, 0, 0, 0).rectangles(x)[..., 0] for ox in (0.0, 2.0))
    torch.testing.assert_close(there - here, torch.full_like(here, 4 * 15 / 16), **EXACT)


def test_a_scale_of_minus_one_reads_the_centre_only():
    layer, x = told(vsa(3, bias_table=True), 0.0, 0.0, -1.0, -1.0), a_map(3, 3)
    torch.nn.init.zeros_(layer.bias_table)
    centre = layer.qkv(x).chunk(3, dim=-1)[2][:, 1:2, 1:2]
    torch.testing.assert_close(layer(x), layer.proj(centre).expand_as(x), **EXACT)


def test_rectangles_grow_move_and_mirror():
    x = a_map(8, 8, batch=1)
    corner = (0, 1, 0, 1)
    torch.testing.assert_close(told(vsa(), 0, 0, 0, 0).rectangles(x)[corner], torch.tensor([0.0, 4, 3, 7]).double())
    doubled = told(vsa(), 0, 0, 1, 1).rectangles(x)[0, 1, 0, 1]
    torch.testing.assert_close(doubled, torch.tensor([-1.5, 2.5, 4.5, 8.5]).double())
    mirrored = told(vsa(), 0, 0, -2, 0).rectangles(x)[0, 1, 0, 1]
    torch.testing.assert_close(mirrored, torch.tensor([3.0, 4, 0, 7]).double())


def test_rectangles_count_from_the_map_not_from_its_padding():
    left_over = told(vsa(padding="symmetric"), 0, 0, 0, 0).rectangles(a_map(5, 6))[0, 0, 0, 0]
    torch.testing.assert_close(left_over, torch.tensor([-1.0, -1, 2, 2]).double())


@pytest.mark.parametrize("hide_padding", [True, False])
def test_a_window_that_left_the_map_gives_the_bias_of_the_projection(hide_padding):
    layer, x = told(vsa(hide_padding=hide_padding), 40.0, 0.0, 0.0, 0.0), a_map(8, 8)
    torch.testing.assert_close(layer(x), layer.proj.bias.expand_as(x), **EXACT)


def test_symmetric_padding_lies_on_both_sides():
    layer, x = vsa(padding="symmetric", hide_padding=False), a_map(9, 8)
    whole = torch.nn.functional.pad(layer.qkv(x), (0, 0, 0, 0, 1, 2))
    query, key, value = whole.unflatten(-1, (3, HEADS, -1)).unbind(-3)
    out = attend(query, key, value, Blocks(4), scale=layer.scale, bias=layer.bias_table)
    torch.testing.assert_close(layer.attention(x), out[:, 1:10], **EXACT)


def test_divisors_swapped_are_the_same_on_square_maps_only():
    plain, swapped = (told(vsa(swap_divisors=swap), 0.5, 0.3, 0, 0) for swap in (False, True))
    square, broad = a_map(8, 8), a_map(8, 16)
    assert torch.equal(plain.places(square), swapped.places(square))
    assert not torch.allclose(plain.places(broad), swapped.places(broad))


def test_a_map_smaller_than_a_window_has_no_whole_window_and_divides_by_one():
    layer, x = told(vsa(7, offset_divisor="whole"), 0.5, 0.5, 0, 0), a_map(3, 2)
    assert layer(x).isfinite().all()
    padded = told(vsa(7), 0.5, 0.5, 0, 0)
    assert torch.equal(layer.places(x), padded.places(x))


def test_the_regression_learns_and_its_gradient_is_exact():
    layer = VSAMixer(4, 2, 2, hide_padding=True).double()
    for parameter in layer.regress.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(1, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = [x, layer.regress.weight, layer.regress.bias]
    assert torch.autograd.gradcheck(lambda *_: layer(x), weights)
    layer(x).square().sum().backward()
    assert layer.regress.weight.grad.abs().min() > 0


def test_places_are_exact_in_bfloat16():
    layer = VSAMixer(DIM, HEADS, 7)
    x = torch.randn(1, 112, 112, DIM)
    (plan,) = layer.bfloat16().plans(x.bfloat16())
    windows = VSAMixer(DIM, HEADS, 7).bfloat16()
    windows.load_state_dict(layer.state_dict())
    assert layer.places(x.bfloat16()).dtype == torch.float32
    read = plan.relation.resample(plan.value)
    cut = plan.relation.split(plan.value)
    torch.testing.assert_close(read, cut, rtol=1e-2, atol=1e-3)


def test_networks_that_initialise_their_linear_layers_leave_the_regression_at_zero():
    stages = (StageSpec(8, 2, ConvSpec(), (VSASpec(), VSASpec(zero_init=False))),)
    model = HierarchicalBackbone(BackboneConfig(stages, num_classes=2))
    zero, other = (block.mixer.regress.weight for block in model.stages[0])
    assert not zero.any()
    assert other.any()


def official_layer(case):
    meta, numbers = load("vsa", case)
    weights = under("weight.", numbers)
    split = "sampling_offsets.2.weight" in weights
    layer = VSAMixer(
        meta["dim"], meta["heads"], meta["window"], out_dim=meta.get("out_dim"), hide_padding=False,
        offset_divisor="whole" if split else "padded", scale_by_input=split,
    ).double()  # fmt: skip
    rules = {"bias_table": swin_table("relative_position_bias_table")}
    for kind in ("weight", "bias"):
        rules |= {f"regress.{kind}": regression_of("", kind, split=split)}
    return meta, numbers, weights, layer, rules


@pytest.mark.parametrize("case", ["swin_attn_div", "swin_attn_pad", "vitae_attn_pad"])
def test_the_official_layer(case):
    meta, numbers, weights, layer, rules = official_layer(case)
    state = layer.state_dict()
    used = {"relative_position_index"}
    for name, tensor in state.items():
        if name in rules:
            names = [part.removeprefix(".") for part in rules[name].names]
            tensor.copy_(rules[name].to_ours([weights[part] for part in names], tuple(tensor.shape)))
            used |= {*names}
        else:
            tensor.copy_(weights[name].reshape(tensor.shape))
            used.add(name)
    assert used == weights.keys()
    x = numbers["input.x"].requires_grad_()
    mixed = as_nchw(layer)(x) if x.dim() == 4 else as_sequence(layer)(x, meta["H"], meta["W"])
    same(mixed, numbers["output.out"])
    (mixed * numbers["cotangent.out"]).sum().backward()
    same(x.grad, numbers["grad_input.x"])
    for name, parameter in layer.named_parameters():
        parts = rules[name].to_theirs(parameter.grad) if name in rules else (parameter.grad,)
        names = [part.removeprefix(".") for part in rules[name].names] if name in rules else [name]
        for part, gradient in zip(names, parts, strict=True):
            expected = numbers[f"grad_weight.{part}"]
            same(gradient.reshape(expected.shape), expected)
    maps = x.permute(0, 2, 3, 1) if x.dim() == 4 else x.unflatten(1, (meta["H"], meta["W"]))
    batch, heads = maps.shape[0], layer.heads
    grid = numbers["output.grid"]
    rows, columns = grid.shape[1] // layer.window[0], grid.shape[2] // layer.window[1]
    places = layer.places(maps).unflatten(2, (rows, columns)).transpose(3, 4).reshape(batch * heads, *grid.shape[1:])
    same(places, grid)
    single = as_nchw(layer.float()) if x.dim() == 4 else as_sequence(layer.float())
    low = single(x.detach().float(), *(() if x.dim() == 4 else (meta["H"], meta["W"])))
    assert (low - numbers["output.out"]).abs().max() <= 1e-5 * numbers["output.out"].abs().max()


def test_a_compiled_layer_takes_maps_of_other_sizes():
    layer = vsa().eval()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for size in ((9, 7), (13, 10), (16, 8)):
            x = a_map(*size)
            torch.testing.assert_close(compiled(x), layer(x), **EXACT)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"heads": 5}, "dim 12 must be a multiple of heads 5"),
        ({"out_dim": 7}, "out_dim 7 must be a multiple of heads 2"),
        ({"padding": "left"}, "padding must be one of right_bottom, symmetric, got 'left'"),
        ({"offset_divisor": "all"}, "offset_divisor must be one of padded, whole, got 'all'"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        VSAMixer(DIM, **{"heads": HEADS} | options)
