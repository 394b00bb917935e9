"""What linear attention and its layers must survive: ranges of half types, decays at their ends, rows of zeros."""

import pytest
import torch

import windeye
from windeye.kernels.native import instruction_sets
from windeye.nn import LightningAttention, SimpleRMSNorm, TaylorLinearAttention
from windeye.nn.norms import norm_of

native = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
FORMS = [
    pytest.param(("cpu", "chunk"), marks=native, id="cpu-chunk"),
    pytest.param(("torch", "chunk"), id="torch-chunk"),
    pytest.param(("torch", "parallel"), id="torch-parallel"),
    pytest.param(("torch", "recurrent"), id="torch-recurrent"),
]
every_form = pytest.mark.parametrize("form", FORMS)
HALVES = [torch.float16, torch.bfloat16]


def run(tensors, form, **options):
    backend, name = form
    query, key, value, *decay = tensors
    log_decay = decay[0] if decay else None
    return windeye.linear_attention(query, key, value, log_decay=log_decay, backend=backend, form=name, **options)


def with_gradients(tensors, form, **options):
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = run(leaves, form, **options)
    return (out, *torch.autograd.grad(out.double().sum(), leaves))


def finite(tensors):
    return all(bool(t.isfinite().all()) for t in tensors)


# Taylor features


@every_form
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [300.0, 6e4])
def test_features_whose_squares_no_half_type_holds_still_weigh(form, dtype, size):
    """The largest key by far takes all of the weight; its features are 45,000 to 2e9 times what float16 can hold."""
    value = torch.randn(1, 40, 2, 4).to(dtype)
    query, key = torch.full((2, 1, 40, 2, 8), size, dtype=dtype).unbind(0)
    key = key * 1e-3
    key[:, 10] = size
    found = with_gradients((query, key, value), form, feature_map="taylor2", normalize=True)
    assert finite(found)
    expected = value[:, 10:11].expand(1, 30, 2, 4)
    assert torch.allclose(found[0][:, 10:], expected, atol=1e-2)


@every_form
def test_features_are_exact_up_to_the_square_root_of_the_float32_range(form):
    query = torch.full((1, 70, 1, 4), 3e4)
    key = 1e13 * torch.rand(1, 70, 1, 4)
    value = torch.randn(1, 70, 1, 4)
    out, *grads = with_gradients((query, key, value), form, feature_map="taylor2", normalize=True)
    exact = run(
        [t.double() for t in (query, key, value)], ("torch", "recurrent"), feature_map="taylor2", normalize=True
    )
    assert (out - exact).abs().max() < 1e-4
    assert finite(grads)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_taylor_layer_is_finite_for_large_inputs_and_far_along(dtype):
    layer = TaylorLinearAttention(32, 4, 8).to(dtype)
    with torch.no_grad():
        out, state = layer((1000 * torch.randn(1, 300, 32)).to(dtype), return_state=True)
        for _ in range(3):
            step, state = layer.step((1000 * torch.randn(1, 32)).to(dtype), state)
    assert finite((out, step, state.matrix))


# Decays at their ends


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "decay",
    [
        pytest.param(torch.full((1, 40, 2), -torch.inf), id="nothing is kept"),
        pytest.param(torch.zeros(1, 40, 2).index_fill(1, torch.tensor([0, 20, 21, 39]), -torch.inf), id="resets"),
        pytest.param(torch.tensor([-torch.inf, 0.0]), id="a head that forgets and one that does not"),
        pytest.param(torch.tensor([-1e4, -1e-30]), id="rates of 1e4 and next to nothing"),
        pytest.param(torch.tensor([-3e38, -0.0]), id="the largest rate, and minus zero"),
    ],
)
def test_decays_at_their_ends_have_finite_values_and_gradients_that_are_those_of_the_definition(form, dtype, decay):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = [t.to(dtype) for t in torch.randn(3, 1, 40, 2, 8).unbind(0)]
    found = with_gradients((*tensors, decay.to(wide)), form)
    assert finite(found)
    exact = with_gradients([*(t.double() for t in tensors), decay.double()], ("torch", "recurrent"))
    tolerance = {torch.float16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-10}[dtype]
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize("rate", [0.0, 1e4, float("inf")])
def test_a_layer_with_a_rate_at_its_end_trains_and_continues(rate):
    layer = LightningAttention(12, 3, rates=(rate,) * 3, lrpe=True)
    x = torch.randn(1, 50, 12, requires_grad=True)
    whole = layer(x)
    grads = torch.autograd.grad(whole.sum(), [x, *layer.parameters()])
    assert finite((whole, *grads))
    with torch.no_grad():
        head, state = layer(x[:, :30], return_state=True)
        assert torch.allclose(torch.cat((head, layer(x[:, 30:], state=state)), dim=1), whole, atol=1e-4)


# Norms


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("kind", ["simple_rms", "rms"])
def test_a_row_of_zeros_stays_zero_with_the_gradient_that_epsilon_leaves(dtype, kind):
    norm = norm_of(kind, 8, 1e-6).to(dtype)
    x = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
    out = norm(x)
    assert torch.equal(out, torch.zeros_like(out))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(grad.double(), torch.full((2, 8), 1000.0, dtype=torch.float64), rtol=1e-2)


@pytest.mark.parametrize("size", [300.0, 6e4])
def test_a_row_whose_square_float16_cannot_hold_is_normalised(size):
    out = SimpleRMSNorm(8)(torch.full((2, 8), size, dtype=torch.float16))
    assert torch.allclose(out.float(), torch.ones(2, 8), atol=1e-3)


@pytest.mark.parametrize("gate", ["linear", "none"])
def test_a_layer_whose_inputs_are_zero_gives_zeros_and_finite_gradients(gate):
    layer = LightningAttention(12, 3, rates=(0.1, 0.2, 0.3), gate=gate)
    x = torch.zeros(1, 20, 12, requires_grad=True)
    out = layer(x)
    assert torch.equal(out, torch.zeros_like(out))
    assert finite(torch.autograd.grad(out.sum(), [x, *layer.parameters()]))


# Sums that float16 cannot hold


@pytest.mark.parametrize("norm", ["simple_rms", "rms", "layer"])
def test_a_layer_that_forgets_nothing_does_not_overflow_in_float16(norm):
    layer = LightningAttention(16, 2, rates=(0.0, 1e-6), norm=norm).half()
    x = (20 * torch.randn(1, 600, 16)).half().requires_grad_()
    plain = LightningAttention(16, 2, rates=(0.0, 1e-6), norm="none", gate="none").double()
    plain.load_state_dict({"qkvu_proj.weight": layer.qkvu_proj.weight[:48], "out_proj.weight": torch.eye(16)})
    assert plain(x.double()).abs().max() > 2 * torch.finfo(torch.float16).max

    exact = LightningAttention(16, 2, rates=(0.0, 1e-6), norm=norm).double()
    exact.load_state_dict(layer.state_dict())
    out, expected = layer(x), exact(x.double())
    assert out.dtype == torch.float16
    assert (out - expected).abs().max() <= 2e-2 * expected.abs().max()
    grads = torch.autograd.grad(out.float().sum(), [x, *layer.parameters()])
    assert finite(grads)
    (of_x,) = torch.autograd.grad(expected.sum(), x)
    assert (grads[0] - of_x).abs().max() <= 5e-2 * of_x.abs().max()


def test_small_sums_are_those_of_the_plain_path_in_float16():
    """The guard changes nothing where there is nothing to guard against but the rounding in between."""
    layer = LightningAttention(16, 2, rates=(0.5, 1.0)).half()
    exact = LightningAttention(16, 2, rates=(0.5, 1.0)).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(1, 40, 16).half()
    with torch.no_grad():
        assert (layer(x) - exact(x.double())).abs().max() < 5e-3
