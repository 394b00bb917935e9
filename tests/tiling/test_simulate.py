"""The simulator against tiles counted on the dense mask, one by one."""

from itertools import product
from math import ceil, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye import Blocks, Causal, Documents, Full, Halo, Neighborhood, Sinks, Sliding
from windeye.tiling import is_fully_block_sparse, simulate, suggest, sweep_strides


def tiles_of(grid, tile):
    """Every tile of a grid as its row-major tokens, cut off at the rim."""
    index = np.arange(prod(grid)).reshape(grid)
    for corner in product(*(range(0, n, t) for n, t in zip(grid, tile, strict=True))):
        yield index[tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))].ravel()


def count_static(pattern, grid, q_tile, kv_tile):
    """Visited tiles per query box, and whether each visited one is allowed whole."""
    mask = pattern.bind(grid).mask().numpy()
    counts, whole = [], True
    for box in tiles_of(grid, q_tile):
        parts = [mask[np.ix_(box, tile)] for tile in tiles_of(grid, kv_tile)]
        counts.append(sum(part.any() for part in parts))
        whole &= all(part.all() for part in parts if part.any())
    return counts, whole


@st.composite
def settings_of_windows(draw):
    rank = draw(st.integers(1, 3))
    grid = tuple(draw(st.integers(1, {1: 40, 2: 12, 3: 6}[rank])) for _ in range(rank))
    window = tuple(draw(st.integers(1, n)) for n in grid)
    stride = tuple(draw(st.integers(1, w)) for w in window)
    causal = tuple(draw(st.booleans()) for _ in grid)
    boundary = draw(st.sampled_from(("clamp", "truncate", "wrap")))
    tiles = [tuple(draw(st.integers(1, n)) for n in grid) for _ in range(2)]
    return Neighborhood(window, stride, 1, causal, boundary), grid, *tiles


@given(settings_of_windows(), st.sampled_from([None, Blocks(3), Halo(2, 1), Full(), Causal()]), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_static_tiles_are_those_of_the_mask(setting, other, union):
    pattern, grid, q_tile, kv_tile = setting
    if other is not None:
        pattern = pattern | other if union else pattern & other
    counts, whole = count_static(pattern, grid, q_tile, kv_tile)
    mean = simulate(pattern, grid, q_tile, kv_tile, reduce="mean")
    worst = simulate(pattern, grid, q_tile, kv_tile, reduce="max")
    full = len(counts) * prod(ceil(n / t) for n, t in zip(grid, kv_tile, strict=True))
    assert mean.visited_tiles == sum(counts)
    assert mean.full_tiles == full
    assert worst.op_speedup == pytest.approx(full / (len(counts) * max(counts)))
    assert mean.op_speedup == pytest.approx(full / sum(counts))
    assert mean.fully_block_sparse == whole == is_fully_block_sparse(pattern, grid, q_tile, kv_tile)


@pytest.mark.parametrize("length", [9, 12])
def test_fully_block_sparse_is_the_definition_of_the_spec(length):
    """One start per query tile, starts on tile borders, ends on tile borders or at the end of the axis."""
    for window in range(1, length + 1):
        for stride, q_tile, kv_tile in product(range(1, window + 1), range(1, 7), range(1, 7)):
            table = Neighborhood(window, stride=stride).bind((length,)).terms[0][0]
            boxes = [range(a, min(a + q_tile, length)) for a in range(0, length, q_tile)]
            expected = all(len({int(table.start[i]) for i in box}) == 1 for box in boxes) and all(
                a % kv_tile == 0 and (b % kv_tile == 0 or b == length)
                for a, b in zip(table.start, table.stop, strict=True)
            )
            assert is_fully_block_sparse(Neighborhood(window, stride=stride), (length,), q_tile, kv_tile) == expected


@given(settings_of_windows())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_dynamic_tiles_start_with_the_window(setting):
    pattern, grid, q_tile, kv_tile = setting
    (term,) = pattern.bind(grid).terms
    per_axis = []
    for table, q, k in zip(term, q_tile, kv_tile, strict=True):
        counts = []
        for a in range(0, table.queries, q):
            box = [i for i in range(a, min(a + q, table.queries)) if table.stop[i] > table.start[i]]
            span = max((table.stop[i] for i in box), default=0) - min((table.start[i] for i in box), default=0)
            counts.append(ceil(min(span, table.length) / k))
        per_axis.append(counts)
    ours = simulate(pattern, grid, q_tile, kv_tile, mode="dynamic", reduce="mean")
    assert ours.visited_tiles == prod(sum(counts) for counts in per_axis)


@pytest.mark.parametrize(("window", "stride", "q", "k"), [(8, 4, 4, 8), (12, 6, 3, 4), (6, 6, 2, 3)])
def test_dynamic_tiling_is_block_sparse_when_window_and_stride_are_multiples(window, stride, q, k):
    assert is_fully_block_sparse(Neighborhood(window, stride=stride), (24,), q, k, mode="dynamic")


@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_dilated_axes_are_tiled_class_by_class(dilation, mode):
    pattern = Neighborhood(4, stride=2, dilation=dilation)
    length = 26
    ours = simulate(pattern, (length,), 4, 4, mode=mode, reduce="mean").visited_tiles
    lengths = [len(range(c, length, dilation)) for c in range(dilation)]
    alone = [simulate(Neighborhood(4, stride=2), (n,), 4, 4, mode=mode, reduce="mean").visited_tiles for n in lengths]
    assert ours == sum(alone)


@pytest.mark.parametrize(
    ("pattern", "grid"), [(Sliding(5) | Sinks(2), (33,)), (Documents((5, 9, 2)), (16,)), (Causal(), (5, 6))]
)
def test_sequences_and_unions(pattern, grid):
    tile = (3,) * len(grid)
    counts, _ = count_static(pattern, grid, tile, tile)
    assert simulate(pattern, grid, 3, 3, reduce="mean").visited_tiles == sum(counts)


def test_tiles_of_one_token_reach_the_flop_bound():
    s = simulate(Neighborhood(5, stride=2), (9, 11), 1, 1, reduce="mean")
    assert s.op_speedup == pytest.approx(s.flop_speedup)
    assert s.efficiency == pytest.approx(1.0)


def test_full_attention_gains_nothing():
    assert simulate(Full(), (30, 7), 4, 4).op_speedup == 1.0


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_the_sweep_is_the_pruning_rule_over_all_strides(mode, reduce):
    window, grid, q_tile, kv_tile = (4, 6), (13, 12), (2, 3), (3, 2)
    speed = {
        stride: simulate(
            Neighborhood(window, stride=stride), grid, q_tile, kv_tile, mode=mode, reduce=reduce
        ).op_speedup
        for stride in product(range(1, 5), range(1, 7))
    }
    kept = {
        s
        for s in speed
        if all(speed[s] > speed[t] + 1e-12 for t in speed if t != s and all(a <= b for a, b in zip(t, s, strict=True)))
    }
    ours = sweep_strides(Neighborhood(window), grid, q_tile, kv_tile, mode=mode, reduce=reduce)
    assert {s.pattern for s in ours} == {Neighborhood(window, stride=s).spec for s in kept}
    assert [s.op_speedup for s in ours] == sorted(s.op_speedup for s in ours)


@pytest.mark.parametrize(("grid", "density"), [((4096,), 0.05), ((64, 64), 0.1), ((16, 44, 80), 0.11), ((7, 5), 0.5)])
def test_suggestions_are_near_the_density_and_valid(grid, density):
    found = suggest(grid, density)
    assert found
    for suggestion in found:
        bound = suggestion.pattern.bind(grid)
        assert bound.density() == pytest.approx(suggestion.density)
        assert suggestion.simulation.op_speedup >= 1.0 or density > 0.4
    assert 0.5 < found[0].density / density < 1.6


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: simulate(Full(), (8,), 2, 2, mode="fixed"), ValueError, "mode must be one of static, dynamic"),
        (lambda: simulate(Full(), (8,), 2, 2, reduce="min"), ValueError, "reduce must be one of max, mean"),
        (lambda: simulate(Full(), (8,), 0, 2), ValueError, "q_tile must be at least 1, got 0"),
        (lambda: simulate(Full(), (8, 8), (2, 2, 2), 2), ValueError, r"q_tile \(2, 2, 2\) has 3 entries"),
        (lambda: simulate(Full(), (8,), 2, 2.5), TypeError, "kv_tile"),
        (lambda: simulate(Neighborhood(9), (8,), 2, 2), ValueError, "axis 0 has 8"),
        (lambda: simulate(Full(), (8,), 2, 2).end_to_end(1.5), ValueError, r"share must be in \[0, 1\], got 1.5"),
        (lambda: sweep_strides(Full(), (8,), 2, 2), TypeError, "strides belong to a Neighborhood"),
        (lambda: suggest((8,), 0.0), ValueError, "density must be above 0"),
        (lambda: suggest((8, 0), 0.5), ValueError, "tokens on every axis"),
        (lambda: simulate(Full(), (1 << 20,), 1, 1), ValueError, "axis 0 has .*too many"),
    ],
)
def test_wrong_calls(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
