"""Arrangements of tokens are what loops give."""

from itertools import product
from math import ceil, floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.windows import blocks
from windeye.tokens import absent, gather, merge, mix, partition, pool, resize, route, sample

sides = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None)
@given(grid=sides, size=sides, data=st.data())
def test_windows_hold_the_blocks_of_the_pattern_and_come_back(grid, size, data):
    shift = tuple(data.draw(st.integers(0, n - 1)) for n in size)
    x = torch.arange(1.0, grid[0] * grid[1] + 1).reshape(1, *grid)
    cut = partition(x, size, shift)
    assert torch.equal(merge(cut, grid, shift), x)
    rows, columns = (
        {frozenset(blocks(i, n, w, s)) for i in range(n)} for n, w, s in zip(grid, size, shift, strict=True)
    )
    expected = {frozenset(x[0, i, j].item() for i, j in product(r, c)) for r, c in product(rows, columns)}
    assert {frozenset(window[window > 0].tolist()) for window in cut[0]} == expected
    hidden = absent(grid, size, shift)
    assert torch.equal(cut[0] == 0, torch.zeros_like(cut[0], dtype=torch.bool) if hidden is None else hidden)


@settings(deadline=None)
@given(grid=sides, cell=sides, counted=st.booleans())
@pytest.mark.parametrize("trains", [False, True], ids=["no gradient", "gradient"])
def test_a_pooled_cell_is_the_mean_of_its_tokens(grid, cell, counted, trains):
    x = torch.randn(2, *grid, 3, 2, dtype=torch.float64, requires_grad=trains)
    pooled = pool(x, cell, count_padding=counted)
    assert pooled.shape == (2, ceil(grid[0] / cell[0]), ceil(grid[1] / cell[1]), 3, 2)
    for r, c in product(range(pooled.shape[1]), range(pooled.shape[2])):
        tokens = x[:, r * cell[0] : (r + 1) * cell[0], c * cell[1] : (c + 1) * cell[1]].flatten(1, 2)
        share = cell[0] * cell[1] if counted else tokens.shape[1]
        torch.testing.assert_close(pooled[:, r, c], tokens.sum(1) / share)


@pytest.mark.parametrize("grid", [(4, 6), (3, 2), (5, 5)])
def test_a_sample_weighs_the_four_tokens_around_it(grid):
    x = torch.randn(2, *grid, 2, 3, dtype=torch.float64)
    at = torch.empty(2, 2, 7, 3, 2, dtype=torch.float64).uniform_(-1.4, 1.4)
    out = sample(x, at)
    assert out.shape == (2, 7, 3, 2, 3)
    for b, h, i, j in product(range(2), range(2), range(7), range(3)):
        column, row = ((at[b, h, i, j] + 1) / 2 * (torch.tensor(grid[::-1]) - 1)).tolist()
        expected = torch.zeros(3, dtype=torch.float64)
        for r, c in product((floor(row), floor(row) + 1), (floor(column), floor(column) + 1)):
            if 0 <= r < grid[0] and 0 <= c < grid[1]:
                expected += (1 - abs(row - r)) * (1 - abs(column - c)) * x[b, r, c, h]
        torch.testing.assert_close(out[b, i, j, h], expected)


def test_the_chosen_regions_match_best_and_get_no_gradient():
    query, key = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 7, 4, requires_grad=True)
    index = route(query, key, 3)
    for b, r in product(range(2), range(5)):
        scores = [(query[b, r] @ key[b, s]).item() for s in range(7)]
        assert index[b, r].tolist() == sorted(range(7), key=lambda s: -scores[s])[:3]
    assert not index.requires_grad
    with pytest.raises(ValueError, match="between 1 and the 7 regions, got 8"):
        route(query, key, 8)


def test_gathered_tokens_lie_one_region_after_the_other():
    regions, index = torch.randn(2, 7, 3, 2, 4), torch.randint(7, (2, 5, 2))
    out = gather(regions, index)
    for b, r in product(range(2), range(5)):
        assert torch.equal(out[b, r], torch.cat([regions[b, s] for s in index[b, r].tolist()]))


@pytest.mark.parametrize("front", [(), (2,), (3, 2)])
def test_mixtures_are_sums_over_positions(front):
    x, weights = torch.randn(3, 2, 4, 2, 5), torch.randn(*front, 6, 8)
    out = mix(x, weights)
    wide = weights.expand(3, 2, 6, 8)
    for b, h, k in product(range(3), range(2), range(6)):
        expected = sum(wide[b, h, k, p] * x[b, p // 4, p % 4, h] for p in range(8))
        torch.testing.assert_close(out[b, k, h], expected)


@settings(deadline=None)
@given(grid=sides, size=sides, antialias=st.booleans(), channels_last=st.booleans())
def test_a_resized_map_is_read_with_tents(grid, size, antialias, channels_last):
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    x = x if channels_last else x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    def axis(few, many, i):
        reach = max(many / few, 1.0) if antialias else 1.0
        place = (i + 0.5) * many / few - 0.5
        place = place if antialias else min(max(place, 0.0), many - 1.0)
        weights = [max(0.0, 1 - abs(place - j) / reach) for j in range(many)]
        return [weight / sum(weights) for weight in weights]

    out = resize(x, size, antialias=antialias)
    assert out.shape == (2, *size, 3)
    for a, b in product(range(size[0]), range(size[1])):
        down, across = axis(size[0], grid[0], a), axis(size[1], grid[1], b)
        expected = sum(down[y] * across[z] * x[:, y, z] for y, z in product(range(grid[0]), range(grid[1])))
        torch.testing.assert_close(out[:, a, b], expected)


def test_a_constant_map_of_any_size_is_the_same_constant():
    for antialias in (False, True):
        assert torch.equal(
            resize(torch.ones(1, 7, 5, 1), (3, 9), antialias=antialias).round(decimals=5), torch.ones(1, 3, 9, 1)
        )
