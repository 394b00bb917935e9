"""The plan of the C++ kernel: every allowed pair is visited, and shared windows cost no more than the FLOP bound."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import windeye
from oracles.problems import PROBLEMS, problems
from windeye import Blocks, Neighborhood, Sinks, Sliding
from windeye.kernels import native
from windeye.kernels.softmax import lanes as planning
from windeye.kernels.softmax.lanes import AXES, plan
from windeye.patterns import Bound


def visited(side, grid, grid_rows):
    """Which (lane, row) pairs a side of the plan looks at, as a dense bool array; also that no lane is in two tiles."""
    pad = AXES - len(grid)
    grid, grid_rows = (1,) * pad + grid, (1,) * pad + grid_rows
    seen = np.zeros((*grid, *grid_rows), dtype=bool)
    count = np.zeros(grid, dtype=int)
    for tile in np.ndindex(*(len(axis.begin) - 1 for axis in side.axes)):
        lanes = [axis.order[axis.begin[t] : axis.begin[t + 1]] for axis, t in zip(side.axes, tile, strict=True)]
        assert np.prod([len(own) for own in lanes]) <= side.lanes
        count[np.ix_(*lanes)] += 1
        for term in side.cover:
            rows = []
            for axis in range(AXES):
                base, size, first, number = term[axis][tile[axis]]
                rows.append([side.row_order[axis][base + (first + i) % size] for i in range(number)])
            seen[np.ix_(*lanes, *rows)] = True
    assert (count == 1).all()
    return seen.reshape(int(np.prod(grid)), int(np.prod(grid_rows)))


def check(problem, lanes):
    bound = problem.pattern.bind(problem.grid, problem.grid_kv)
    if not bound.terms:
        return
    mask = bound.mask().numpy()
    work = plan(bound, lanes)
    assert (visited(work.forward, bound.grid, bound.grid_kv) >= mask).all()
    assert (visited(work.transposed, bound.grid_kv, bound.grid) >= mask.T).all()


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if np.prod(p.grid) < 100], ids=str)
def test_every_allowed_pair_is_visited(problem, lanes):
    check(problem, lanes)


@given(problem=problems())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_allowed_pair_is_visited_on_random_problems(problem):
    check(problem, 8)


@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Neighborhood(16, stride=8), (64, 64)),
        (Neighborhood((8, 12, 12), stride=4), (16, 32, 32)),
        (Neighborhood(16, stride=16), (64, 64)),
        (Blocks(8), (64, 64)),
    ],
)
def test_stride_groups_reach_the_flop_bound(pattern, grid):
    bound = pattern.bind(grid)
    assert plan(bound, 16).forward.visited_pairs == bound.pairs()


def worked_on(bound, lanes):
    """Pairs that vectors compute: for every box of lanes, the rows of each term that one of its lanes sees."""
    side = plan(bound, lanes).forward
    pad = AXES - bound.rank
    number = np.arange(bound.tokens).reshape((1,) * pad + bound.grid)
    total = 0
    for tile in np.ndindex(*(len(axis.begin) - 1 for axis in side.axes)):
        own = [axis.order[axis.begin[t] : axis.begin[t + 1]] for axis, t in zip(side.axes, tile, strict=True)]
        cuts = [
            [part[first : first + size] for first in range(0, len(part), size)]
            for part, size in zip(own, side.box, strict=True)
        ]
        assert np.prod([len(c) for c in cuts]) * lanes <= side.lanes
        for vector in product(*cuts):
            queries = number[np.ix_(*vector)].ravel()
            assert len(queries) <= lanes
            for term in bound.terms:
                seen = Bound(bound.grid, bound.grid_kv, (term,)).mask().numpy()[queries].any(axis=0)
                total += lanes * int(seen.sum())
    return total


@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Neighborhood(5), (13, 11)),
        (Neighborhood(3, dilation=2), (9, 14)),
        (Neighborhood((2, 3, 3), stride=(1, 2, 1)), (4, 7, 5)),
        (Sliding(7) | Sinks(2), (61,)),
        (Blocks(4, shift=2), (12, 10)),
    ],
)
@pytest.mark.parametrize("lanes", [8, 16])
def test_visited_pairs_are_the_rows_that_each_vector_of_lanes_sees(pattern, grid, lanes):
    bound = pattern.bind(grid)
    assert plan(bound, lanes).forward.visited_pairs == worked_on(bound, lanes)


@pytest.mark.skipif(native.cpu is None, reason="the C++ kernel was not built")
def test_only_a_backward_pass_plans_with_keys_in_the_lanes(monkeypatch):
    planned = []
    side = planning._side

    def watched(grid, *rest):
        planned.append(grid[-1])
        return side(grid, *rest)

    monkeypatch.setattr(planning, "_side", watched)
    query, key = torch.randn(1, 1, 2, 8), torch.randn(1, 1237, 2, 8)
    windeye.attend(query, key, key, windeye.Causal(), backend="cpu")
    assert planned == [1]
    out = windeye.attend(query.requires_grad_(), key, key, windeye.Causal(), backend="cpu")
    assert planned == [1]
    out.sum().backward()
    assert planned == [1, 1237]
