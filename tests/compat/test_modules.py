"""NATTEN's modules are projections around the oracle's windows, with NATTEN's state."""

import pytest
import torch

import windeye.compat.natten as natten
from oracles.attention import attention
from oracles.windows import relation
from windeye import Neighborhood, nn

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CASES = [
    (natten.NeighborhoodAttention1D, (9,), {"kernel_size": 3, "stride": 2, "dilation": 2}),
    (natten.NeighborhoodAttention1D, (8,), {"kernel_size": (4,), "is_causal": True, "qk_scale": 0.3}),
    (natten.NeighborhoodAttention2D, (5, 6), {"kernel_size": (3, 2), "is_causal": (False, True)}),
    (natten.NeighborhoodAttention2D, (4, 6), {"kernel_size": 2, "stride": 2, "dilation": (1, 3), "qkv_bias": False}),
    (natten.NeighborhoodAttention3D, (2, 3, 4), {"kernel_size": (2, 3, 3), "is_causal": (True, False, False)}),
]


@pytest.mark.parametrize(("kind", "grid", "options"), CASES)
def test_equals_projections_around_the_oracle_with_all_gradients(kind, grid, options):
    layer = kind(8, 2, **options).double()
    x = torch.randn(2, *grid, 8, dtype=torch.float64, requires_grad=True)
    weights = dict(layer.named_parameters())
    tokens = x.flatten(1, -2) @ weights["qkv.weight"].T + weights.get("qkv.bias", 0.0)
    q, k, v = (part.reshape(2, -1, 2, 4) for part in tokens.split(8, dim=-1))
    window = {name: value for name, value in options.items() if not name.startswith("qk")}
    seen = relation(Neighborhood(**window), grid)
    out, _ = attention(q, k, v, seen, scale=options.get("qk_scale", 0.5))
    truth = (out.flatten(2) @ weights["proj.weight"].T + weights["proj.bias"]).reshape(x.shape)
    ours = layer(x)
    torch.testing.assert_close(ours, truth, **EXACT)
    pull, leaves = torch.randn_like(truth), [x, *weights.values()]
    gradients = [torch.autograd.grad((result * pull).sum(), leaves) for result in (ours, truth)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_the_state_goes_over_to_the_layers_of_windeye_and_back():
    theirs, ours = natten.NeighborhoodAttention2D(16, 4, 3), nn.NeighborhoodAttention2d(16, 4, 3)
    assert {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()} == {
        "qkv.weight": (48, 16), "qkv.bias": (48,), "proj.weight": (16, 16), "proj.bias": (16,),
    }  # fmt: skip
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 5, 6, 16)
    assert torch.equal(ours(x), theirs(x))
    without = natten.NeighborhoodAttention2D(16, 4, 3, qkv_bias=False)
    assert sorted(without.state_dict()) == ["proj.bias", "proj.weight", "qkv.weight"]


def test_dropout_acts_on_the_projection_in_training_only():
    layer = natten.NeighborhoodAttention1D(8, 2, 3, proj_drop=0.5)
    x = torch.randn(1, 200, 8)
    dropped = (layer(x) == 0).float().mean()
    assert 0.4 < dropped < 0.6
    assert (layer.eval()(x) == 0).sum() == 0


def test_attributes_are_one_entry_per_axis():
    layer = natten.NeighborhoodAttention3D(12, 3, 4, stride=2, is_causal=(True, False, False))
    assert (layer.kernel_size, layer.stride, layer.dilation) == ((4, 4, 4), (2, 2, 2), (1, 1, 1))
    assert layer.is_causal == (True, False, False)
    assert (layer.na_dim, layer.embed_dim, layer.num_heads, layer.head_dim, layer.scale) == (3, 12, 3, 4, 0.5)
    assert "kernel_size=(4, 4, 4), stride=(2, 2, 2)" in repr(layer)


ERRORS = [
    (lambda: natten.NeighborhoodAttention2D(10, 4, 3), r"embed_dim 10 must be a positive multiple of num_heads 4"),
    (lambda: natten.NeighborhoodAttention2D(8, 0, 3), r"embed_dim 8 must be a positive multiple of num_heads 0"),
    (lambda: natten.NeighborhoodAttention2D(8, 4, 1), r"kernel_size must be integers of at least 2, got 1 on axis 0"),
    (lambda: natten.NeighborhoodAttention2D(8, 4, (3, 3, 3)), r"kernel_size must be an integer or 2 integers"),
    (lambda: natten.NeighborhoodAttention1D(8, 4, 3, stride=4)(torch.zeros(1, 9, 8)), r"stride 4 is larger than"),
    (lambda: natten.NeighborhoodAttention1D(8, 4, 3)(torch.zeros(1, 9, 9, 8)),
     r"x must be \[batch, 1 token axes, embed_dim 8\], got shape \(1, 9, 9, 8\)"),
    (lambda: natten.NeighborhoodAttention1D(8, 4, 3)(torch.zeros(1, 9, 7)), r"embed_dim 8\], got shape \(1, 9, 7\)"),
    (lambda: natten.NeighborhoodAttention1D(8, 4, 5)(torch.zeros(1, 4, 8)), r"needs 5 keys but axis 0 has 4"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), ERRORS, ids=[words for _, words in ERRORS])
def test_wrong_calls_are_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
