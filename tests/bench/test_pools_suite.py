"""The pools suite: what is called published is the same pool, and rows are what was measured."""

import pytest
import torch

from windeye.bench import pools
from windeye.bench.timing import can_measure_memory

CASE = pools.Case(2, 9, 96)


@pytest.mark.parametrize("name", pools.POOLS)
def test_the_published_arithmetic_is_the_same_pool(name):
    pool = pools.POOLS[name](96).double()
    theirs = pools.published(pool)
    if theirs is None:
        assert name in {"mean", "AbMILP with self-attention"}
        return
    x = torch.randn(2, 9, 96, dtype=torch.float64)
    cotangent = torch.randn(2, 96, dtype=torch.float64)
    outs = [run(x) for run in (pool, theirs)]
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-11)
    gradients = [torch.autograd.grad((out * cotangent).sum(), list(pool.parameters())) for out in outs]
    for ours, other in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-11)


def test_parameters_are_those_of_the_spec():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build(768).parameters()) for build in pools.POOLS.values()]
    assert counts == [614_400, 0, 1_181_184, 1_770_240, 2_360_064, 7_088_640, 7_085_568, 2_951_425]


def test_a_case_is_measured_and_becomes_rows(monkeypatch):
    monkeypatch.setattr(pools, "CASES", (CASE,))
    measured = {f"time {CASE.name}": pools.times(CASE, 3)}
    if can_measure_memory():
        some = {pools.EP: lambda: None, f"{pools.EP}, as published": lambda: None}
        monkeypatch.setattr(pools, "candidates", lambda _case: (None, some, torch.zeros(1)))
        measured[f"memory {CASE.name}"] = pools.memory(pools.Case(8, 49, 96))
    table = pools.rows({"parts": measured})
    assert [row[0] for row in table] == [f"{CASE.name}, {name}" for name in pools.POOLS]
    assert {len(row) for row in table} == {len(pools.COLUMNS)}
    assert table[0][5] == "1.00x"
    assert (table[1][2], table[1][1]) == ("", "0")


def test_a_step_leaves_no_gradients_behind():
    _, steps, x = pools.candidates(CASE)
    pool = steps[pools.EP].args[0]
    assert steps[pools.EP]().shape == (2, 96)
    assert all(p.grad is None for p in pool.parameters())
    assert not x.requires_grad


def test_parts_have_names_of_their_own():
    names = [name for name, _ in pools.parts(quick=True)]
    assert len(names) == len(set(names))
    assert names[0] == "time 4 x 49 x 96"
