"""Every registered mixer of maps keeps the contract; a new one is tested by registering.

It brings a module ``cases/<kind>.py`` with ``VARIANTS``, specs worth testing, and ``heads(layer, x)``, the heads'
outputs by loops.
"""

import copy
import io
import json
import pickle
from importlib import import_module

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from windeye.nn.mixers import MIXERS

DIM, HEADS = 12, 2
SIZES = [(1, 1), (7, 7), (15, 13), (3, 40)]
EXACT = {"rtol": 1e-9, "atol": 1e-10}
CASES = {kind: import_module(f"nn.mixers.cases.{kind}") for kind in MIXERS}
SPECS = [spec for case in CASES.values() for spec in case.VARIANTS]

every_mixer = pytest.mark.parametrize("spec", SPECS, ids=str)
on_every_map = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def built(spec, dtype=torch.float64):
    """A layer whose every parameter matters: what starts at zero or near it does not stay there."""
    layer = spec.build(DIM, HEADS).to(dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def a_map(size, batch=2):
    return torch.randn(batch, *size, DIM, dtype=torch.float64)


def test_the_defaults_of_every_kind_are_among_what_is_tested():
    assert all(MIXERS[kind]() in case.VARIANTS for kind, case in CASES.items())


@every_mixer
@on_every_map
def test_heads_are_what_loops_give(spec, size):
    layer, x = built(spec), a_map(size)
    with torch.no_grad():
        torch.testing.assert_close(layer.attention(x), CASES[spec.kind].heads(layer, x), **EXACT)


@every_mixer
@on_every_map
def test_the_dense_matrix_makes_the_heads_outputs_from_the_positions(spec, size):
    layer, x = built(spec).eval(), a_map(size)
    dense, positions = layer.to_dense(x), layer.positions(x)
    assert dense.shape == (2, HEADS, size[0] * size[1], positions.shape[1])
    out = torch.einsum("bhqp,bphd->bqhd", dense, positions)
    torch.testing.assert_close(out, layer.attention(x).flatten(1, 2), **EXACT)


@every_mixer
@on_every_map
def test_a_look_is_a_row_of_the_dense_matrix(spec, size):
    layer, x = built(spec).eval(), a_map(size)
    y, z = size[0] // 2, size[1] - 1
    row = layer.to_dense(x)[:, :, y * size[1] + z]
    torch.testing.assert_close(layer.look(x, (y, z)).flatten(2), row, **EXACT)


@every_mixer
def test_gradients_are_those_of_the_loops(spec):
    layer, x = built(spec), a_map((6, 5)).requires_grad_()
    used = [p for p in layer.parameters() if p.requires_grad]
    leaves = [x, *used]
    cotangent = torch.randn(2, 6, 5, HEADS, DIM // HEADS, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((out * cotangent).sum(), leaves, allow_unused=True)
        for out in (layer.attention(x), CASES[spec.kind].heads(layer, x))
    )
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            assert all(g is None or not g.any() for g in (a, b))
        else:
            torch.testing.assert_close(a, b, **EXACT)


@every_mixer
def test_every_parameter_gets_a_gradient(spec):
    layer = built(spec)
    layer(a_map((9, 11))).sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@every_mixer
def test_bfloat16_is_as_exact_as_dense_attention_in_bfloat16(spec):
    """The same inputs in both: at most twice the error of matrices and softmax in the same type."""
    layer, x = built(spec).eval(), a_map((9, 8)).bfloat16()
    coarse = copy.deepcopy(layer).bfloat16()
    fine = copy.deepcopy(coarse).double()
    with torch.no_grad():
        exact = fine.attention(x.double()).flatten(1, 2)
        dense = coarse.to_dense(x)
        plain = torch.einsum("bhqp,bphd->bqhd", dense, coarse.positions(x))
        bound = 2 * (plain.double() - exact).abs().mean()
        assert (coarse.attention(x).flatten(1, 2).double() - exact).abs().mean() <= bound


@every_mixer
def test_batch_entries_are_independent(spec):
    layer, x = built(spec).eval(), a_map((9, 10), batch=3)
    whole = layer(x)
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], layer(x[i : i + 1]), **EXACT)


@every_mixer
def test_the_state_does_not_depend_on_the_size_of_the_map(spec):
    layer = built(spec).eval()
    before = {name: tuple(t.shape) for name, t in layer.state_dict().items()}
    for size in SIZES:
        assert layer(a_map(size)).shape == (2, *size, DIM)
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == before


@every_mixer
def test_strided_maps_are_as_good_as_any(spec):
    layer = built(spec).eval()
    nchw = torch.randn(2, DIM, 8, 9, dtype=torch.float64)
    x = nchw.permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), **EXACT)


@every_mixer
def test_copies_and_files_are_the_layer(spec):
    layer, x = built(spec).eval(), a_map((5, 6))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = spec.build(DIM, HEADS).double().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), layer(x))


@every_mixer
def test_a_spec_survives_as_data(spec):
    assert MIXERS.from_dict(json.loads(json.dumps(MIXERS.to_dict(spec)))) == spec


@every_mixer
@pytest.mark.parametrize("shape", [(2, 5, DIM), (2, 5, 5, DIM + 1)])
def test_other_shapes_are_refused_by_name(spec, shape):
    with pytest.raises(ValueError, match=f"dim {DIM}"):
        built(spec)(torch.randn(*shape, dtype=torch.float64))


@pytest.mark.parametrize("kind", MIXERS)
def test_compiled_graphs_have_no_breaks(kind):
    layer, x = built(MIXERS[kind]()).eval(), a_map((9, 7))
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x), **EXACT)


def compiled_in(graphs, layer, gradients=False, **options):
    """The layer compiled as one graph for each kind of map; what is compiled, also backward, is added to ``graphs``."""

    def backend(graph, _inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward) if gradients else graph.forward

    torch._dynamo.reset()
    return torch.compile(
        layer, fullgraph=True, backend=aot_autograd(fw_compiler=backend) if gradients else backend, **options
    )


@pytest.mark.parametrize("kind", MIXERS)
def test_one_compiled_graph_serves_maps_of_all_sizes(kind):
    """Not a square map first: torch takes axes that are alike in what it traces for one size."""
    layer, graphs = built(MIXERS[kind]()).eval(), []
    compiled = compiled_in(graphs, layer, dynamic=True)
    with torch.no_grad():
        for grid in ((9, 11), (14, 14), (21, 10), (16, 25), (28, 28)):
            x = a_map(grid)
            torch.testing.assert_close(compiled(x), layer(x), **EXACT)
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", MIXERS)
def test_one_compiled_graph_serves_training_on_maps_of_all_sizes(kind):
    """Windows and routing with the graph of their gradients; that of others takes long to trace."""
    layer, graphs = built(MIXERS[kind]()), []
    gradients = kind in ("window", "bi_level_routing")
    compiled = compiled_in(graphs, layer, gradients)
    used = list(layer.parameters())
    for grid in ((9, 11), (14, 14), (21, 10), (16, 25)):
        x = a_map(grid).requires_grad_()
        for axis in (1, 2):
            torch._dynamo.mark_dynamic(x, axis)
        ours, theirs = compiled(x), layer(x)
        torch.testing.assert_close(ours, theirs, **EXACT)
        cotangent = torch.randn_like(ours)
        grads = (torch.autograd.grad((out * cotangent).sum(), [x, *used]) for out in (ours, theirs))
        torch.testing.assert_close(*grads, **EXACT)
    assert len(graphs) == 1 + gradients
