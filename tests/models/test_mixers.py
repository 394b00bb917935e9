"""Every registered mixer keeps the contract; a new one is tested by registering."""

import copy
import io

import pytest
import torch

from nn import mixer_kit as kit
from windeye.models import (
    MIXERS,
    AttentionSpec,
    ConvolutionSpec,
    DynamicMaskSpec,
    LightningSpec,
    ProductConvolutionSpec,
    TaylorSpec,
    TitansSpec,
    mixer,
)

DIM = 16
VARIANTS = [
    LightningSpec(lrpe=True),
    LightningSpec(heads=3, hidden_dim=18, rates="none", activation="1+elu", norm="layer", gate="lowrank_sigmoid"),
    LightningSpec(rates="retnet", gate="none", norm="none", activation="none"),
    LightningSpec(rates="alibi", norm="rms"),
    TaylorSpec(heads=2, feature_dim=5, head_dim=3),
    AttentionSpec(window=5, kv_heads=2),
    AttentionSpec(window=1, bias=True),
    AttentionSpec(rotary_base=None),
    DynamicMaskSpec(keep=4),
    DynamicMaskSpec(keep=5, kv_heads=2, a_std=2.0),
    DynamicMaskSpec(keep=3, kv_heads=2, head_dim=6, score_heads="kv", score="linear", qk_norm=True, a_std=2.0),
    DynamicMaskSpec(keep=6, window=4, rotary_base=None, bias=True, a_std=2.0),
    TitansSpec("lmm", chunk_size=4, memory_head_dim=3, max_step=0.4),
    TitansSpec("lmm", depth=1, persistent=0, kernel_size=1, momentum=False, forgetting=False, chunk_size=1),
    TitansSpec("mac", heads=2, window=5, chunk_size=3, kv_heads=1, residual=True),
    TitansSpec("mag", window=6, chunk_size=5, persistent=0, max_grad_norm=0.1),
    TitansSpec("mal", window=4, memory_heads=2, chunk_size=3, depth=3, expansion=1),
    ConvolutionSpec(kernel_size=1, expand=2),
    ConvolutionSpec(kernel_size=5, conv_bias=True),
    ProductConvolutionSpec(activation="silu"),
]
SPECS = [spec() for spec in MIXERS.values()] + VARIANTS


@pytest.fixture(params=SPECS, ids=str)
def spec(request):
    return request.param


@pytest.fixture
def layer(spec):
    return spec.build(DIM, 1, 3).double()


@pytest.fixture
def x():
    return torch.randn(3, 13, DIM, dtype=torch.float64)


@pytest.fixture
def other():
    return torch.randn(3, 13, DIM, dtype=torch.float64)


def test_it_is_causal(layer, x, other):
    kit.assert_causal(layer, x, other)


def test_it_can_be_cut_anywhere(layer, x):
    kit.assert_split_invariant(layer, x)


def test_steps_are_the_whole(layer, x):
    kit.assert_steps_are_the_whole(layer, x, prefill=4)


def test_a_step_takes_one_token(layer, x):
    _, state = layer(x[:, :12], return_state=True)
    kit.same(layer.step(x[:, 12], state)[0], layer(x)[:, 12])
    kit.same(layer.step(x[:, 0], None)[0], layer(x)[:, 0])


def test_padding_changes_nothing(layer, x, other):
    kit.assert_padding_invariant(layer, x, other)


def test_not_even_nan_leaves_the_padding(layer, x, other):
    padding = torch.arange(13) < torch.tensor([[4], [0], [12]])
    out, state = layer(torch.where(padding[..., None], torch.nan, x), padding=padding, return_state=True)
    expected, clean = layer(x, padding=padding, return_state=True)
    assert torch.equal(out, expected)
    assert torch.equal(layer(other, state=state), layer(other, state=clean))


def test_lengths_are_padding_on_the_right(layer, x, other):
    kit.assert_lengths_are_padding_on_the_right(layer, x, other)


def test_packed_documents_are_alone(layer, x, other):
    kit.assert_packed_documents_are_alone(layer, x.requires_grad_(), other, [x, *layer.parameters()])


def test_rows_are_independent(layer, x, other):
    kit.assert_rows_are_independent(layer, x, other)


def test_its_state_survives_files(layer, x, other, tmp_path):
    kit.assert_state_survives_files(layer, x, other, tmp_path / "state.safetensors")


def test_its_state_takes_the_promised_bytes(layer, x):
    kit.assert_bytes_are_as_promised(layer, x, layer.state_bytes)
    kit.assert_bytes_are_as_promised(layer.float(), x.float(), layer.state_bytes)


def test_gradients_cross_the_cut(layer, x):
    kit.assert_gradients_cross_the_cut(layer, x.requires_grad_(), [x, *layer.parameters()])


def test_gradients_of_padding_are_zero(layer, x):
    padding = torch.arange(13) < torch.tensor([[0], [5], [12]])
    layer(x.requires_grad_(), padding=padding).square().sum().backward()
    assert (x.grad[padding] == 0).all()
    assert (x.grad[~padding] != 0).any()


def test_gradcheck(layer):
    x = torch.randn(1, 5, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_stay_close(spec, x, dtype):
    wide = spec.build(DIM, 1, 3).double()
    narrow = copy.deepcopy(wide).to(dtype)
    wide.load_state_dict(narrow.state_dict())  # the same weights, rounded
    rounded = x.to(dtype)
    out, state = narrow(rounded, return_state=True)
    expected = wide(rounded.double())
    assert out.dtype == dtype
    error = (out.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < (1e-5 if dtype == torch.float32 else 3e-2)
    narrow(rounded, state=state)


def test_autocast_trains_and_continues(layer, x):
    layer = layer.float()
    x = x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        head, state = layer(x[:, :7], return_state=True)
        out = torch.cat((head, layer(x[:, 7:], state=state)), dim=1)
    out.float().square().sum().backward()
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05 * out.abs().max().item())
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_it_is_copied_pickled_and_stored_like_any_module(layer, x):
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)


def test_its_configuration_reads_back(spec):
    assert MIXERS.from_dict(MIXERS.to_dict(spec)) == spec
    assert hash(spec) == hash(copy.deepcopy(spec))


def test_it_runs_on_the_meta_device_of_its_builder(spec):
    with torch.device("meta"):
        layer = spec.build(DIM, 0, 1)
    assert all(p.is_meta for p in layer.parameters())


def test_wrong_calls_are_refused(layer, x):
    padding = torch.zeros(3, 13, dtype=torch.bool)
    _, state = layer(x, return_state=True)
    with pytest.raises(ValueError, match=r"x must be \[batch, tokens, dim 16\], got shape \(3, 13, 5\)"):
        layer(x[..., :5])
    with pytest.raises(TypeError, match=r"padding must be boolean, True where there is no token"):
        layer(x, padding=padding.int())
    with pytest.raises(ValueError, match=r"padding must be \[batch 3, tokens 13\], got shape \(3, 12\)"):
        layer(x, padding=padding[:, 1:])
    with pytest.raises(ValueError, match=r"give one of the two"):
        layer(x, padding=padding, lengths=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"lengths must be \[batch 3\], got shape \(2,\)"):
        layer(x, lengths=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"state is of 3 sequences but x has 2"):
        layer(x[:2], state=state)
    one, bounds = x[:1], torch.tensor([0, 5, 13])
    with pytest.raises(ValueError, match=r"state is of 3 sequences but x has 2"):
        layer(one, cu_seqlens=bounds, state=state)
    with pytest.raises(ValueError, match=r"cu_seqlens packs documents and lengths pads them; give one of the two"):
        layer(one, cu_seqlens=bounds, lengths=torch.tensor([13]))
    with pytest.raises(ValueError, match=r"cu_seqlens packs documents and padding pads them; give one of the two"):
        layer(one, cu_seqlens=bounds, padding=padding[:1])
    with pytest.raises(ValueError, match=r"cu_seqlens needs batch 1, got batch 3"):
        layer(x, cu_seqlens=bounds)
    with pytest.raises(TypeError, match=r"cu_seqlens must be integers, got torch.float32"):
        layer(one, cu_seqlens=bounds.float())
    for wrong in (torch.tensor(13), torch.tensor([0]), bounds[None]):
        with pytest.raises(ValueError, match=r"cu_seqlens must be \[documents \+ 1\], got shape"):
            layer(one, cu_seqlens=wrong)
    for wrong in ([0, 12], [1, 13], [0, 7, 5, 13], [0, 14, 13]):
        with pytest.raises(ValueError, match=rf"must rise from 0 to the number of tokens 13, got \{wrong}"):
            layer(one, cu_seqlens=torch.tensor(wrong))


def test_the_state_of_another_layer_is_refused(x):
    _, state = ConvolutionSpec().build(DIM, 0, 1).double()(x, return_state=True)
    with pytest.raises(TypeError, match="state must be a KeyValueState, got ConvolutionState"):
        AttentionSpec().build(DIM, 0, 1).double()(x, state=state)


def test_names_of_mixers_are_taken_once_and_unknown_ones_refused():
    with pytest.raises(ValueError, match="mixer 'taylor' is registered twice"):
        mixer("taylor")(TaylorSpec)
    with pytest.raises(ValueError, match="unknown mixer 'hyena'; known are lightning, taylor"):
        MIXERS.from_dict({"kind": "hyena"})
    with pytest.raises(ValueError, match=r"rates must be one of code, minimax, .*, none, got 'linear'"):
        LightningSpec(rates="linear").build(DIM, 0, 1)
