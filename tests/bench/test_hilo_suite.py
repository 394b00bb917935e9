"""The hilo suite: textbook forms are the same layers, costs are the published ones, rows are what was measured."""

import pytest
import torch

from windeye.bench import hilo
from windeye.bench.textbook import textbook

PUBLISHED = {  # hilo spec, the speed benchmark: millions of parameters and of multiply-adds
    "full": (2.36, 521.4), "spatial reduction by 2": (4.72, 419.4), "windows of 7": (2.36, 477.2),
    "stripes of 7": (2.37, 493.3), "HiLo": (2.20, 298.3),
}  # fmt: skip


@pytest.mark.parametrize("name", hilo.LAYERS)
def test_the_textbook_form_is_the_same_layer(name):
    layer = hilo.LAYERS[name](48, 6).double()
    x = torch.randn(2, 14, 14, 48, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), textbook(layer)(x)
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", hilo.LAYERS)
def test_costs_are_those_of_the_published_table(name):
    """Spatial reduction is published with 0.2 million more, for its norm."""
    costs = hilo.costs(hilo.LAYERS[name](768, 12), 14)
    assert (round(costs["parameters"] / 1e6, 2), round(costs["multiply_adds"] / 1e6, 1)) == PUBLISHED[name]


def test_a_case_is_measured_both_ways_and_becomes_rows(monkeypatch):
    case = hilo.Case(1, 14, 24, 6, paper=True)
    monkeypatch.setattr(hilo, "CASES", (case,))
    measured = {f"paper {case.name}": hilo._paper(case, 2), f"clean {case.name}": hilo._clean(case, 3)}
    table = hilo.rows({"parts": measured})
    assert [row[0].split(", ")[1] for row in table] == list(hilo.LAYERS)
    assert {len(row) for row in table} == {len(hilo.COLUMNS)}
    last = table[-1]
    assert (last[4], last[7]) == ("1.00x", "1.00x")


def test_maps_that_would_fill_the_memory_are_not_made(monkeypatch):
    monkeypatch.setattr(hilo, "MOST_WEIGHTS", 10)
    measured = hilo._clean(hilo.Case(1, 14, 24, 6), 3)
    assert "textbook full" not in measured["timings"]
    assert "full" in measured["timings"]


def test_parts_have_names_of_their_own():
    names = [name for name, _ in hilo.parts()]
    assert len(names) == len(set(names)) == len(hilo.CASES) + 1
    assert [name.split()[0] for name, _ in hilo.parts(quick=True)] == ["paper", "clean"]


@pytest.mark.parametrize("case", hilo.CASES, ids=lambda case: case.name)
def test_every_layer_can_be_made_for_every_case(case):
    small = hilo.Case(1, case.side, case.dim, case.heads)
    layers, x = hilo._layers(small)
    assert {tuple(layer(x[:, :14, :14]).shape) for layer in layers.values()} == {(1, 14, 14, case.dim)}
