"""The layers are projections around the oracle's attention, and behave as torch's own modules do."""

import copy
import io
import pickle
from itertools import product

import beartype
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import jaxtyped
from torch.func import functional_call

from oracles.attention import attention, spread_bias
from oracles.windows import relation
from windeye.kernels.native import instruction_sets
from windeye.nn import NeighborhoodAttention1d, NeighborhoodAttention2d, NeighborhoodAttention3d

LAYERS = {1: NeighborhoodAttention1d, 2: NeighborhoodAttention2d, 3: NeighborhoodAttention3d}
NATIVE = pytest.param("cpu", marks=pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing"))
EXACT = {"rtol": 1e-10, "atol": 1e-11}

CASES = [
    ((9,), {"kernel_size": 5}),
    ((11,), {"kernel_size": 4, "stride": 2, "is_causal": True}),
    ((10,), {"kernel_size": 3, "dilation": 3, "bias_table": True}),
    ((5, 6), {"kernel_size": 3, "bias_table": True}),
    ((7, 6), {"kernel_size": (3, 4), "stride": (2, 3), "dilation": (2, 1), "scale": 0.3}),
    ((6, 7), {"kernel_size": (5, 3), "dilation": (1, 2), "bias_table": True, "stride": (2, 1)}),
    ((4, 5), {"kernel_size": (-1, 3), "scale": 0.0}),
    ((4, 5), {"kernel_size": 3, "qkv_bias": False, "is_causal": (True, False)}),
    ((3, 4, 3), {"kernel_size": (2, 3, 3), "bias_table": True}),
    ((4, 3, 4), {"kernel_size": (2, 2, 3), "stride": (1, 2, 1), "is_causal": (True, False, False)}),
]
SMALL_MAPS = [
    ((4,), {"kernel_size": 3, "dilation": 2}),
    ((6, 8), {"kernel_size": 3, "dilation": 3, "bias_table": True}),
    ((2, 9), {"kernel_size": (3, -1), "is_causal": (True, False)}),
    ((2, 3, 1), {"kernel_size": (3, 3, 2), "bias_table": True}),
]
by_case = pytest.mark.parametrize(("grid", "options"), CASES + [(g, o | {"small_map": "pad"}) for g, o in SMALL_MAPS])


def layer_of(grid, heads=2, head_dim=3, **options):
    layer = LAYERS[len(grid)](heads * head_dim, heads, **options).double()
    if layer.rpb is not None:
        torch.nn.init.normal_(layer.rpb)  # large enough to matter
    return layer


def per_axis(value, rank):
    return value if isinstance(value, tuple) else (value,) * rank


def padded_grid(layer, grid):
    """Every axis long enough for its dilated window, as NAT and DiNAT pad."""
    window, dilation = (per_axis(getattr(layer.pattern, n), len(grid)) for n in ("kernel_size", "dilation"))
    return tuple(max(n, w * d) for n, w, d in zip(grid, window, dilation, strict=True))


def composed(layer, x):
    """What the layer is: pad, project, the oracle's attention with the bias spread over pairs, crop, project."""
    batch, *grid, width = x.shape
    wide = padded_grid(layer, grid)
    for axis, (short, long) in enumerate(zip(grid, wide, strict=True), start=1):
        zeros = x.new_zeros(*x.shape[:axis], long - short, *x.shape[axis + 1 :])
        x = torch.cat([x, zeros], dim=axis)
    qkv = x.reshape(batch, -1, width) @ layer.qkv.weight.T
    if layer.qkv.bias is not None:
        qkv = qkv + layer.qkv.bias
    query, key, value = (part.unflatten(-1, (layer.num_heads, -1)) for part in qkv.split(width, dim=-1))
    mask = relation(layer.pattern, wide)
    bias = None if layer.rpb is None else spread_bias(layer.rpb, wide, per_axis(layer.pattern.dilation, len(wide)))
    scale = layer.head_dim**-0.5 if layer.scale is None else layer.scale
    out, _ = attention(query, key, value, mask, scale=scale, bias=bias)
    out = out.reshape(batch, *wide, width)[(slice(None), *map(slice, grid))]
    return out @ layer.proj.weight.T + layer.proj.bias


@by_case
@pytest.mark.parametrize("backend", [NATIVE, "reference"])
def test_the_layer_is_its_composition_forward_and_backward(grid, options, backend):
    layer = layer_of(grid, **options, backend=backend)
    x = torch.randn(2, *grid, 6, dtype=torch.float64, requires_grad=True)
    out, expected = layer(x), composed(layer, x)
    assert out.shape == x.shape
    torch.testing.assert_close(out, expected, **EXACT)
    leaves = [x, *layer.parameters()]
    cotangent = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((y * cotangent).sum(), leaves) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("case", [2, 5, 9], ids=lambda i: str(CASES[i]))
def test_gradcheck(case):
    grid, options = CASES[case]
    layer = layer_of(grid, head_dim=1, **options)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(1, *grid, 2, dtype=torch.float64, requires_grad=True)

    def call(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters), fast_mode=True)


def test_the_gradient_of_the_bias_table_is_a_sum_over_the_pairs_of_each_offset():
    """fna spec: entry ``(j' - i') + (W - 1)`` in local coordinates; ``d logit = P (dP - sum P dP)``."""
    grid, window, dilation, heads, dim = (7, 6), (3, 2), (2, 3), 2, 3
    layer = layer_of(grid, kernel_size=window, dilation=dilation, bias_table=True)
    x = torch.randn(2, *grid, heads * dim, dtype=torch.float64)
    cotangent = torch.randn_like(x)
    (layer(x) * cotangent).sum().backward()

    query, key, value = (p.flatten(1, 2).unflatten(-1, (heads, dim)) for p in layer.qkv(x).detach().chunk(3, dim=-1))
    upstream = (cotangent @ layer.proj.weight).detach().flatten(1, 2).unflatten(-1, (heads, dim))
    coordinates = list(product(*map(range, grid)))
    expected = torch.zeros_like(layer.rpb)
    for b, h, (i, at) in product(range(2), range(heads), enumerate(coordinates)):
        seen = [j for j, sees in enumerate(relation(layer.pattern, grid)[i]) if sees]
        entries = []
        for j in seen:
            steps = [k // d - q // d for q, k, d in zip(at, coordinates[j], dilation, strict=True)]
            entries.append((h, *(step + w - 1 for step, w in zip(steps, window, strict=True))))
        logits = dim**-0.5 * key[b, seen, h] @ query[b, i, h] + torch.stack([layer.rpb.detach()[e] for e in entries])
        weights, pull = logits.softmax(0), value[b, seen, h] @ upstream[b, i, h]
        for entry, gradient in zip(entries, weights * (pull - (weights * pull).sum()), strict=True):
            expected[entry] += gradient
    torch.testing.assert_close(layer.rpb.grad, expected, **EXACT)


@pytest.mark.parametrize(("grid", "options"), SMALL_MAPS)
def test_a_small_map_is_refused_unless_it_may_be_padded(grid, options):
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    layer = layer_of(grid, **options)
    with pytest.raises(ValueError, match=r"needs \d keys but axis \d has \d"):
        layer(x)
    layer.small_map = "pad"
    assert layer(x).shape == x.shape


@pytest.mark.parametrize(("grid", "options"), [case for case in CASES if len(case[0]) == 2])
def test_a_map_that_fits_is_never_padded(grid, options):
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    layer = layer_of(grid, **options)
    plain = layer(x)
    layer.small_map = "pad"
    assert torch.equal(layer(x), plain)


def counting_layer(p, window):
    """Every logit zero, every value one, no output projection: an output counts the weights that were kept."""
    layer = NeighborhoodAttention2d(4, 2, window, attn_drop=p)
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([0.0] * 8 + [1.0] * 4))
        layer.proj.weight.copy_(torch.eye(4))
        layer.proj.bias.zero_()
    return layer


def test_attention_dropout_keeps_the_mean_and_has_the_spread_of_independent_weights():
    p, window, side = 0.3, 5, 48
    layer = counting_layer(p, window)
    out = layer(torch.zeros(1, side, side, 4)).detach().double()
    assert torch.equal(out[..., 0], out[..., 1])  # one weight serves a whole head
    rows = out[..., ::2]
    kept = rows * (1 - p) * window**2
    assert torch.allclose(kept, kept.round(), atol=1e-3)
    variance = p / (1 - p) / window**2
    assert abs(rows.mean() - 1) < 5 * (variance / rows.numel()) ** 0.5
    assert abs(rows.var() / variance - 1) < 0.1
    correlation = torch.corrcoef(rows.reshape(-1, 2).T)[0, 1]
    assert abs(correlation) < 0.1  # heads drop independently


def test_dropout_acts_in_training_only_and_follows_the_seed():
    x = torch.randn(1, 8, 8, 12)
    layer = NeighborhoodAttention2d(12, 2, 3, attn_drop=0.4, proj_drop=0.4)
    plain = NeighborhoodAttention2d(12, 2, 3)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x), plain(x))
    layer.train()
    torch.manual_seed(3)
    first = layer(x)
    assert not torch.equal(first, layer(x))
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert 0.3 < (first == 0).double().mean() < 0.5  # proj_drop


def dense(layer, x, grid):
    """The same layer with torch's dense masked attention."""
    mask = torch.from_numpy(relation(layer.pattern, grid))
    query, key, value = layer.qkv(x).flatten(1, -2).unflatten(-1, (3, layer.num_heads, -1)).unbind(2)
    bias = spread_bias(layer.rpb, grid, (1,) * len(grid)).masked_fill(~mask, -torch.inf).to(query.dtype)
    heads_first = (t.transpose(1, 2) for t in (query, key, value))
    out = F.scaled_dot_product_attention(*heads_first, attn_mask=bias)
    return layer.proj(out.transpose(1, 2).flatten(2)).reshape(x.shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_in_half_types_the_layer_errs_at_most_twice_as_much_as_dense_attention(dtype, autocast):
    grid = (9, 10)
    exact = NeighborhoodAttention2d(32, 2, 5, bias_table=True).to(dtype).double()  # numbers that the type can hold
    x = torch.randn(2, *grid, 32).to(dtype).double()
    truth = composed(exact, x)
    cast = copy.deepcopy(exact).to(torch.float32 if autocast else dtype)
    inputs = x.to(torch.float32 if autocast else dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        ours, theirs = cast(inputs), dense(cast, inputs, grid)
    assert ours.dtype == theirs.dtype == dtype
    for norm in (torch.linalg.vector_norm, lambda t: t.abs().max()):
        assert norm(ours.double() - truth) <= 2 * norm(theirs.double() - truth)
    ours.sum().backward()
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in cast.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_into_one_graph_forward_and_backward():
    torch.compiler.reset()
    layer = NeighborhoodAttention2d(8, 2, 3, dilation=2, bias_table=True, small_map="pad")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for grid in ((7, 8), (4, 9)):  # the second is padded
        x = torch.randn(2, *grid, 8, requires_grad=True)
        leaves = [x, *layer.parameters()]
        ours, plain = compiled(x), layer(x)
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
        for a, b in zip(*(torch.autograd.grad(y.sin().sum(), leaves) for y in (ours, plain)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_state_dict_has_the_names_of_nat_and_dinat_checkpoints():
    layer = NeighborhoodAttention2d(64, 2, 7, dilation=8, bias_table=True)
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == {
        "rpb": (2, 13, 13),
        "qkv.weight": (192, 64),
        "qkv.bias": (192,),
        "proj.weight": (64, 64),
        "proj.bias": (64,),
    }
    bare = NeighborhoodAttention3d(6, 2, 3, qkv_bias=False)
    assert sorted(bare.state_dict()) == ["proj.bias", "proj.weight", "qkv.weight"]
    shapes = [tuple(LAYERS[r](6, 3, (5, 4, 2)[:r], bias_table=True).rpb.shape) for r in LAYERS]
    assert shapes == [(3, 9), (3, 9, 7), (3, 9, 7, 3)]


def test_a_checkpoint_with_another_window_or_without_a_table_is_refused():
    layer = NeighborhoodAttention2d(8, 2, 7, bias_table=True)
    with pytest.raises(RuntimeError, match="size mismatch for rpb"):
        layer.load_state_dict(NeighborhoodAttention2d(8, 2, 5, bias_table=True).state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key.*"rpb"'):
        layer.load_state_dict(NeighborhoodAttention2d(8, 2, 7).state_dict())


def test_fresh_weights():
    layer = NeighborhoodAttention2d(32, 16, 31, bias_table=True)
    assert abs(layer.rpb.std() / 0.02 - 1) < 0.05
    assert abs(layer.rpb.mean()) < 0.001
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    layer.reset_parameters()
    assert all(not torch.equal(t, before[name]) for name, t in layer.state_dict().items())
    assert layer.no_weight_decay() == {"rpb"}
    assert NeighborhoodAttention2d(32, 4, 3).no_weight_decay() == set()


def test_the_layer_prints_what_it_is():
    assert repr(NeighborhoodAttention2d(8, 2, (3, 5), stride=2)).startswith(
        "NeighborhoodAttention2d(\n  8, num_heads=2, Neighborhood(kernel_size=(3, 5), stride=2)\n  (qkv): Linear("
    )
    full = NeighborhoodAttention1d(
        8, 2, 3, bias_table=True, scale=0.5, attn_drop=0.1, small_map="pad", backend="reference"
    )
    assert full.extra_repr() == (
        "8, num_heads=2, Neighborhood(kernel_size=3), bias_table=True, scale=0.5, attn_drop=0.1, small_map='pad', "
        "backend='reference'"
    )


def through_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


def through_a_file(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = NeighborhoodAttention2d(8, 2, (3, 4), stride=(1, 2), bias_table=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_a_file])
def test_a_copy_is_the_same_layer(copied):
    layer = NeighborhoodAttention2d(8, 2, (3, 4), stride=(1, 2), bias_table=True)
    other = copied(layer)
    x = torch.randn(2, 6, 7, 8)
    assert other.pattern == layer.pattern
    assert torch.equal(other(x), layer(x))
    with torch.no_grad():
        other.rpb.add_(1.0).mul_(torch.rand_like(other.rpb))
    assert not torch.equal(other(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_to_moves_everything(dtype):
    layer = NeighborhoodAttention1d(8, 2, 3, bias_table=True).to(dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert layer(torch.randn(1, 7, 8, dtype=dtype)).dtype == dtype


def test_on_the_meta_device_shapes_are_known_and_nothing_is_computed():
    with torch.device("meta"):
        layer = NeighborhoodAttention2d(64, 4, 7, bias_table=True)
        out = layer(torch.empty(2, 20, 21, 64))
    assert out.is_meta
    assert out.shape == (2, 20, 21, 64)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_strides_and_no_tokens(rank):
    layer = LAYERS[rank](8, 2, 3).double()
    x = torch.randn(2, 8, *[5] * rank, dtype=torch.float64)
    moved = x.movedim(1, -1)  # channels first in memory
    torch.testing.assert_close(layer(moved), layer(moved.contiguous()), **EXACT)
    for empty in (moved[:0], moved[:, :0]):
        assert layer(empty).shape == empty.shape
    checked = jaxtyped(typechecker=beartype.beartype)(layer.forward)
    assert checked(moved).shape == moved.shape


def make(rank=2, **options):
    arguments = {"embed_dim": 8, "num_heads": 2, "kernel_size": 3} | options
    return lambda: LAYERS[rank](**arguments)


def call(*shape, rank=2, **options):
    return lambda: make(rank, **options)()(torch.zeros(*shape))


WRONG = {
    "heads that do not divide": (make(num_heads=3), ValueError, "embed_dim 8 must be a multiple of num_heads 3"),
    "no heads": (make(num_heads=0), ValueError, "num_heads must be at least 1, got 0"),
    "heads as a float": (make(num_heads=2.0), TypeError, "num_heads must be an integer, got 2.0"),
    "width as a bool": (make(embed_dim=True), TypeError, "embed_dim must be an integer, got True"),
    "width of zero": (make(embed_dim=0), ValueError, "embed_dim must be at least 1, got 0"),
    "window of zero": (make(kernel_size=0), ValueError, "kernel_size must be at least 1 or -1, got 0"),
    "window of other axes": (make(kernel_size=(3, 3, 3)), ValueError, r"\(3, 3, 3\) has 3 entries .* 2 axes"),
    "stride of other axes": (make(1, stride=(1, 1)), ValueError, r"stride \(1, 1\) has 2 entries .* 1 axes"),
    "dilation of other axes": (make(3, dilation=(1, 1)), ValueError, r"dilation \(1, 1\) has 2 entries .* 3 axes"),
    "causality of other axes": (make(is_causal=(True,)), ValueError, r"is_causal \(True,\) has 1 entries .* 2 axes"),
    "causality as a number": (make(is_causal=1), TypeError, "is_causal must be a bool"),
    "a causal table": (
        make(bias_table=True, is_causal=(False, True)), ValueError, r"no causal form, got is_causal=\(False, True\)",
    ),
    "a table of open size": (make(bias_table=True, kernel_size=(3, -1)), ValueError, r"in keys .*\(3, -1\)"),
    "dropout of one": (make(attn_drop=1.0), ValueError, r"attn_drop must be in \[0, 1\), got 1.0"),
    "dropout as text": (make(proj_drop="0.1"), TypeError, "proj_drop must be a number, got '0.1'"),
    "dropout that is no number": (make(proj_drop=float("nan")), ValueError, "proj_drop must be finite, got nan"),
    "scale as text": (make(scale="0.1"), TypeError, "scale must be a number, got '0.1'"),
    "infinite scale": (make(scale=float("inf")), ValueError, "scale must be finite, got inf"),
    "unknown rule for small maps": (make(small_map="crop"), ValueError, r"\('refuse', 'pad'\), got 'crop'"),
    "no grid": (call(2, 8), ValueError, r"x must be \[batch, 2 grid axes, embed_dim 8\], got shape \(2, 8\)"),
    "a volume for a map": (call(2, 4, 4, 4, 8), ValueError, r"2 grid axes.*\(2, 4, 4, 4, 8\)"),
    "channels first": (call(2, 8, 4, 4), ValueError, "x has 4 channels but embed_dim is 8"),
    "a map that is too small": (call(1, 6, 2, 8), ValueError, "kernel_size 3 .*axis 1 has 2; .*is 2"),
    "a stride past the window": (call(1, 6, 6, 8, stride=(1, 4)), ValueError, "stride 4 .*kernel_size 3 on axis 1"),
    "an unknown backend": (call(1, 6, 6, 8, backend="cuda"), ValueError, "backend must be .*got 'cuda'"),
    "another type": (
        lambda: make()()(torch.zeros(1, 6, 6, 8, dtype=torch.float64)), RuntimeError, "same dtype",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_calls_are_named(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong()
