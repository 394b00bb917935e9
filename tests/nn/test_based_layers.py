"""The three mixers of Based, and those of its benchmark, against the official code."""

import pytest
import torch

from golden import load, same, under
from windeye.kernels.recurrence.features import features
from windeye.nn import CausalAttention, GatedShortConvolution, ProductConvolution, TaylorLinearAttention

PAPER = "based"


def check_gradients(layer, x, out, numbers, official):
    """Gradients of ``sum(out * do)``; ``official`` maps our parameter names to the official ones."""
    names = [name for name, _ in layer.named_parameters()]
    of_x, *rest = torch.autograd.grad((out * numbers["input.do"]).sum(), [x, *layer.parameters()])
    same(of_x, numbers["grad_input.x"])
    for name, gradient in zip(names, rest, strict=True):
        same(gradient, numbers[f"grad_weight.{official[name]}"])


TAYLOR = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in
          [("q_proj", "proj_q"), ("k_proj", "proj_k"), ("v_proj", "proj_v"), ("out_proj", "out_proj")]}  # fmt: skip


def taylor(numbers, dim, config, names):
    layer = TaylorLinearAttention(dim, config["heads"], config["feature_dim"], head_dim=config.get("head_dim")).double()
    layer.load_state_dict({ours: numbers[f"weight.{theirs}"] for ours, theirs in names.items()})
    return layer


def read_as_officially(matrix, width):
    """A state with each product of two coordinates once, as the official one that holds all of them, [.., e, F]."""
    row, column = torch.tril_indices(width, width, -1)
    full = matrix.new_zeros(*matrix.shape[:2], 1 + width + width**2, matrix.shape[-1])
    full[:, :, : 1 + width] = matrix[:, :, : 1 + width]
    squares = 1 + width + torch.arange(width) * (width + 1)
    full[:, :, squares] = matrix[:, :, 1 + width : 1 + 2 * width]
    products = matrix[:, :, 1 + 2 * width :] * 0.5**0.5
    full[:, :, 1 + width + row * width + column] = products
    full[:, :, 1 + width + column * width + row] = products
    return full.transpose(-1, -2)


@pytest.mark.parametrize("case", ["linear_attention", "linear_attention_wide_head"])
def test_taylor_attention_is_the_official_layer_in_one_pass_and_in_steps(case):
    meta, numbers = load(PAPER, case)
    config = meta["config"]
    layer = taylor(numbers, config["d_model"], config, TAYLOR)
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    same(out, numbers["output.y"])
    check_gradients(layer, x, out, numbers, TAYLOR)

    prefill = config["prefill"]
    out, state = layer(x[:, :prefill], return_state=True)
    outs = [out]
    for when in ("after_prefill", "final"):
        kv, k = read_as_officially(state.matrix, config["feature_dim"]).split((layer.head_dim, 1), dim=-2)
        same(kv, numbers[f"output.kv_state_{when}"][:, :, 0])
        same(k, numbers[f"output.k_state_{when}"][:, :, 0])
        if when == "after_prefill":
            for token in x[:, prefill:].unbind(1):
                out, state = layer.step(token, state)
                outs.append(out[:, None])
    same(torch.cat(outs, dim=1), numbers["output.y_prefill_then_steps"])


def test_the_benchmarks_taylor_layer_and_its_count_of_the_state():
    meta, numbers = load(PAPER, "zoology_layer")
    config = meta["config"]
    names = TAYLOR | {"out_proj.weight": "proj_o.weight"}
    layer = taylor(numbers, config["d_model"], config, names)
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    same(out, numbers["output.y"])
    check_gradients(layer, x, out, numbers, names)
    assert layer.float().state_bytes(15) == 4 * config["state_size"]


def test_small_queries_make_taylor_attention_softmax_attention():
    layer = TaylorLinearAttention(12, 3, 6).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64) * 0.01
    q, k, v = (p(x).unflatten(-1, (3, -1)) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    logits = torch.einsum("bthd,bshd->bhts", q, k) / 6**0.5
    hidden = torch.ones(9, 9).triu(1).bool()
    soft = torch.einsum("bhts,bshe->bthe", logits.masked_fill(hidden, -torch.inf).softmax(-1), v)
    torch.testing.assert_close(layer(x), layer.out_proj(soft.flatten(-2)), rtol=1e-9, atol=1e-10)


def test_keys_that_are_all_zero_give_the_running_mean():
    layer = TaylorLinearAttention(12, 3, 6).double()
    torch.nn.init.zeros_(layer.k_proj.weight)
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    mean = layer.v_proj(x).cumsum(1) / torch.arange(1, 10)[:, None]
    same(layer(x), layer.out_proj(mean))


def test_the_features_of_a_padded_token_are_not_zero_yet_it_counts_for_nothing():
    """phi(0) starts with 1: padding must be left out of the denominator, not only made zero."""
    layer = TaylorLinearAttention(12, 3, 6).double()
    assert features("taylor2", torch.zeros(6))[0] == 1
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    padded = torch.cat((torch.zeros(1, 4, 12, dtype=torch.float64), x), dim=1)
    padding = torch.arange(9)[None] < 4
    same(layer(padded, padding=padding)[:, 4:], layer(x))


def test_the_window_layer_is_the_official_one_whose_window_is_halved():
    meta, numbers = load(PAPER, "sliding_window")
    config = meta["config"]
    names = {"qkv_proj.weight": "based.Wqkv.weight", "out_proj.weight": "based.out_proj.weight"}
    layer = CausalAttention(config["d_model"], config["heads"], config["window_size"] // 2 + 1).double()
    layer.load_state_dict({ours: numbers[f"weight.{theirs}"] for ours, theirs in names.items()})
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    same(out, numbers["output.based_y"])
    check_gradients(layer, x, out, numbers, names)


def test_the_benchmarks_window_layer_has_one_head_no_positions_and_its_whole_window():
    meta, numbers = load(PAPER, "sliding_window")
    config, w = meta["config"], under("weight.zoology.", numbers)
    layer = CausalAttention(config["d_model"], 1, config["window_size"] + 1, rotary_base=None, bias=True).double()
    layer.load_state_dict({k.replace("Wqkv", "qkv_proj"): t for k, t in w.items()})
    same(layer(numbers["input.x"]), numbers["output.zoology_y"])


def test_a_long_window_is_full_attention_and_a_window_of_one_is_the_value():
    full = CausalAttention(12, 3).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    wide, own = (CausalAttention(12, 3, window).double() for window in (9, 1))
    for layer in (wide, own):
        layer.load_state_dict(full.state_dict())
    same(wide(x), full(x))
    same(own(x), own.out_proj(own.qkv_proj(x)[..., 24:]))


def test_rotary_positions_only_matter_by_distance():
    layer = CausalAttention(16, 2).double()
    x = torch.randn(1, 7, 16, dtype=torch.float64)
    _, state = layer(torch.randn(1, 5, 16, dtype=torch.float64), return_state=True)
    state.key, state.value = state.key[:, :0], state.value[:, :0]  # forget the keys, keep the place
    same(layer(x, state=state), layer(x))


def test_grouped_heads_share_keys_and_values():
    grouped, plain = CausalAttention(16, 4, kv_heads=2).double(), CausalAttention(16, 4).double()
    q, k, v = grouped.qkv_proj.weight.detach().split((16, 8, 8))
    spread = [t.unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1) for t in (k, v)]
    plain.load_state_dict({"qkv_proj.weight": torch.cat((q, *spread)), "out_proj.weight": grouped.out_proj.weight})
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    same(grouped(x), plain(x))


PROJECTIONS = ("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias")
CONVOLUTION = {name: f"based.{name}" for name in PROJECTIONS} | {"conv.weight": "based.conv.conv.weight"}


def test_the_gated_convolution_is_the_official_one_in_one_pass_and_in_steps():
    meta, numbers = load(PAPER, "short_convolution")
    config = meta["config"]
    layer = GatedShortConvolution(config["d_model"], config["kernel"], expand=config["expand_proj"]).double()
    layer.load_state_dict({ours: numbers[f"weight.{theirs}"] for ours, theirs in CONVOLUTION.items()})
    x = numbers["input.x"].requires_grad_()
    out = layer(x)
    same(out, numbers["output.based_y"])
    check_gradients(layer, x, out, numbers, CONVOLUTION)

    out, state = layer(x[:, : config["prefill"]], return_state=True)
    # The official state keeps one input more than is read.
    same(state.inputs, numbers["output.based_state_after_prefill"][..., 1:].transpose(1, 2))
    outs = [out]
    for token in x[:, config["prefill"] :].unbind(1):
        out, state = layer.step(token, state)
        outs.append(out[:, None])
    same(torch.cat(outs, dim=1), numbers["output.based_y_prefill_then_steps"])


@pytest.mark.parametrize(("activation", "output"), [("none", "zoology_y"), ("silu", "zoology_y_act")])
def test_the_benchmarks_convolution(activation, output):
    meta, numbers = load(PAPER, "short_convolution")
    config, w = meta["config"], under("weight.zoology.", numbers)
    layer = ProductConvolution(config["d_model"], config["kernel"], activation=activation).double()
    layer.load_state_dict({k.replace("conv.conv", "conv").replace("projection", "proj"): t for k, t in w.items()})
    same(layer(numbers["input.x"]), numbers[f"output.{output}"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaylorLinearAttention(12, 5), r"dim 12 must be a multiple of heads 5"),
        (lambda: TaylorLinearAttention(12, 3, 0), r"feature_dim must be at least 1, got 0"),
        (lambda: CausalAttention(12, 3, 0), r"window must be at least 1, got 0"),
        (lambda: CausalAttention(12, 4), r"rotary positions need an even head_dim, got 3; use rotary_base=None"),
        (lambda: CausalAttention(16, 4, kv_heads=3), r"kv_heads 3 must divide heads 4"),
        (lambda: GatedShortConvolution(12, 0), r"kernel_size must be at least 1, got 0"),
        (lambda: GatedShortConvolution(3, expand=1), r"expand \* dim must be even, got 1 \* 3"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
