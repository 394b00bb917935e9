"""Row statistics of the compiled pass are differentiable: their gradients are those of the maps."""

from dataclasses import replace

import pytest
import torch

import windeye
from oracles.statistics_cases import CASES, Case, LogDistance, inputs
from windeye import Full, Sliding
from windeye.kernels.native import instruction_sets
from windeye.ops import (
    DistanceMass,
    Entropy,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    SpanMass,
    WindowedDistance,
)

pytestmark = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
TOLERANCE = {
    torch.float64: {"rtol": 1e-8, "atol": 1e-9},
    torch.float32: {"rtol": 2e-4, "atol": 2e-4},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}


def asked(spans):
    return {
        "entropy": Entropy(), "squares": Participation(), "mass": RowMass(), "far": MeanDistance(),
        "log": LogDistance(), "window": WindowedDistance(10), "around": DistanceMass(-3, 70),
        "sinks": SinkMass(3), "spans": SpanMass(spans),
    }  # fmt: skip


def gradients(query, key, options, stats, route):
    """Of a loss that weighs every number differently; with respect to queries, keys and learned sinks."""
    leaves = [query.clone().requires_grad_(), key.clone().requires_grad_()]
    if "sink_logits" in options:
        leaves.append(options["sink_logits"].clone().requires_grad_())
        options = options | {"sink_logits": leaves[2]}
    values = windeye.statistics(leaves[0], leaves[1], stats, route=route, **options)
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for value in values.values():
        loss = loss + (value.double() * torch.randn(value.shape, generator=generator, dtype=torch.float64)).sum()
    return torch.autograd.grad(loss, leaves)


def assert_equal(case, dtype=torch.float64, stats=None):
    query, key, options, spans = inputs(case, dtype=dtype)
    stats = stats or asked(spans)
    options.pop("rows", None)
    found = gradients(query, key, options, stats, "cpu")
    truth = gradients(query.double(), key.double(), options, stats, "slab")
    for ours, theirs, name in zip(found, truth, ("query", "key", "sinks"), strict=False):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(
            ours.double() / scale, theirs / scale, **TOLERANCE[dtype], msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_map(case):
    assert_equal(case)


@pytest.mark.parametrize("name", ["entropy", "squares", "mass", "far", "log", "window", "around", "sinks", "spans"])
def test_each_statistic_alone(name):
    case = Case(90, heads=4, kv_heads=2, sinks=True, softcap=3.0)
    *_, spans = inputs(case)
    assert_equal(case, stats={name: asked(spans)[name]})


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_instruction_set_and_type(name, dtype, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", name)
    case = Case(80, keys=100, heads=6, kv_heads=2, head_dim=20, sinks=True, softcap=4.0)
    assert_equal(case, dtype)
    assert_equal(replace(case, softcap=None, sinks=False, pattern=Sliding(40)), dtype)


@pytest.mark.parametrize("pattern", [windeye.Causal(), Full()], ids=str)
def test_gradients_are_the_differences_of_the_values(pattern):
    query, key = torch.randn(1, 5, 2, 3, dtype=torch.float64), torch.randn(1, 7, 1, 3, dtype=torch.float64)
    sinks = torch.randn(2, dtype=torch.float64)
    spans = torch.arange(7)[None] < 4
    stats = {"H": Entropy(), "P": Participation(), "m": RowMass(), "d": MeanDistance(), "s": SpanMass(spans)}

    def values(query, key, sinks):
        found = windeye.statistics(query, key, stats, pattern, softcap=2.0, sink_logits=sinks, route="cpu")
        return torch.cat([value.flatten() for value in found.values()])

    assert torch.autograd.gradcheck(values, [t.requires_grad_() for t in (query, key, sinks)])


def test_nan_in_a_hidden_key_reaches_no_gradient():
    query, key, options, spans = inputs(Case(90, heads=4, kv_heads=2))
    options["key_padding"] = torch.zeros(2, 90, dtype=torch.bool)
    options["key_padding"][:, [3, 70]] = True
    clean = gradients(query, key, options, asked(spans), "cpu")
    key[:, [3, 70]] = torch.nan
    of_query, of_key = gradients(query, key, options, asked(spans), "cpu")
    torch.testing.assert_close(of_query, clean[0], rtol=1e-12, atol=1e-12)
    shown = ~options["key_padding"][0]
    torch.testing.assert_close(of_key[:, shown], clean[1][:, shown], rtol=1e-12, atol=1e-12)


def test_a_query_that_sees_nothing_pulls_at_nothing():
    query, key, options, spans = inputs(Case(40))
    options["key_padding"] = torch.arange(40).expand(2, -1) < 35
    of_query, of_key = gradients(query, key, options, asked(spans), "cpu")
    assert bool((of_query[:, :35] == 0).all())
    assert bool((of_key[:, :35] == 0).all())
    assert bool((of_key[:, 35:] != 0).any())


def test_the_same_bits_with_any_number_of_threads():
    query, key, options, spans = inputs(Case(200, heads=4, kv_heads=2), dtype=torch.float32)
    one = gradients(query, key, options, asked(spans), "cpu")
    torch.set_num_threads(3)
    for ours, theirs in zip(gradients(query, key, options, asked(spans), "cpu"), one, strict=True):
        assert torch.equal(ours, theirs)


def test_what_has_no_gradient_here_goes_by_slabs():
    query = torch.randn(1, 30, 2, 4, requires_grad=True)
    key = torch.randn(1, 30, 2, 4)
    values = windeye.statistics(query, key, {"most": MaxWeight(), "H": Entropy()})
    torch.autograd.backward(values["most"].sum() + values["H"].sum())
    assert bool((query.grad != 0).any())
    with pytest.raises(ValueError, match="it has no gradient of MaxWeight"):
        windeye.statistics(query, key, {"most": MaxWeight()}, route="cpu")
