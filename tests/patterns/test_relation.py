"""Whatever a bound pattern says of itself is the oracle's relation: every class and combination, on any two grids."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import windeye.patterns
from oracles.patterns import bindings, grids, single
from oracles.windows import relation
from windeye.patterns import Blocks, Causal, Full, Neighborhood, Prefix, Sinks, Sliding, from_spec, parse

many = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def mask_of(bound):
    return bound.mask().numpy()


@many
@given(bindings())
def test_the_mask_is_the_oracles_relation(binding):
    pattern, grid, keys = binding
    mask = pattern.bind(grid, keys).mask()
    assert mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), relation(pattern, grid, keys))


@many
@given(bindings())
def test_keys_of_a_query_are_its_row(binding):
    pattern, grid, keys = binding
    bound = pattern.bind(grid, keys)
    rows = relation(pattern, grid, keys)
    for number, at in enumerate(np.ndindex(*grid)):
        assert bound.keys_of(number) == bound.keys_of(at) == np.flatnonzero(rows[number]).tolist()


@many
@given(bindings())
def test_the_mask_mod_is_the_oracles_relation(binding):
    pattern, grid, keys = binding
    bound = pattern.bind(grid, keys)
    query, key = torch.arange(bound.tokens)[:, None], torch.arange(bound.tokens_kv)[None, :]
    seen = bound.mask_mod()(0, 0, query, key)
    assert seen.dtype == torch.bool
    assert np.array_equal(seen.expand(bound.tokens, bound.tokens_kv).numpy(), relation(pattern, grid, keys))


@many
@given(bindings())
def test_counts_are_the_oracles(binding):
    pattern, grid, keys = binding
    bound = pattern.bind(grid, keys)
    pairs = int(relation(pattern, grid, keys).sum())
    assert bound.pairs() == pairs
    assert bound.density() == pairs / (bound.tokens * bound.tokens_kv)
    assert bound.flops(heads=3, head_dim=8, value_dim=5, batch=2) == 2 * 2 * 3 * pairs * (8 + 5)


@many
@given(bindings())
def test_the_inverse_is_the_transposed_relation(binding):
    pattern, grid, keys = binding
    bound = pattern.bind(grid, keys)
    reverse = bound.inverse()
    assert (reverse.grid, reverse.grid_kv) == (keys, grid)
    assert np.array_equal(mask_of(reverse), relation(pattern, grid, keys).T)
    assert np.array_equal(mask_of(reverse.inverse()), mask_of(bound))
    assert reverse.pairs() == bound.pairs()


@many
@given(bindings(same=True))
def test_between_equal_grids_the_inverse_has_one_term_for_each(binding):
    """The kernels' backward pass is planned from it; a term without a reverse in one table would be walked whole."""
    bound = binding[0].bind(*binding[1:])
    assert len(bound.inverse().terms) == len(bound.terms)


@many
@given(st.data())
def test_and_is_both_and_or_is_either(data):
    grid, keys = data.draw(grids())
    a, b = data.draw(single(grid, keys)), data.draw(single(grid, keys))
    first, second = relation(a, grid, keys), relation(b, grid, keys)
    assert np.array_equal(mask_of((a & b).bind(grid, keys)), first & second)
    assert np.array_equal(mask_of((a | b).bind(grid, keys)), first | second)
    assert (a & b).bind(grid, keys).pairs() + (a | b).bind(grid, keys).pairs() == first.sum() + second.sum()


@many
@given(st.data())
def test_tables_intersect_into_disjoint_tables(data):
    grid, keys = data.draw(grids(rank=1))
    a, b = (data.draw(single(grid, keys)).bind(grid, keys) for _ in range(2))
    assume(a.terms and b.terms)
    one, other = a.terms[0][0], b.terms[0][0]
    pieces = [piece.mask().astype(int) for piece in one.intersect(other)]
    assert np.array_equal(sum(pieces), one.mask() & other.mask())
    assert sum(int(piece.counts().sum()) for piece in one.intersect(other)) == (one.mask() & other.mask()).sum()


@many
@given(bindings())
def test_the_spec_reads_back_as_the_same_pattern(binding):
    pattern, grid, keys = binding
    assert from_spec(pattern.spec) == parse(pattern.spec) == pattern
    assert hash(from_spec(pattern.spec)) == hash(pattern)
    assert eval(repr(pattern), dict(vars(windeye.patterns))) == pattern
    assert from_spec(pattern.spec).bind(list(grid), list(keys)) is pattern.bind(grid, keys)


def test_tables_of_unlike_axes_do_not_intersect():
    a, b = Full().bind((4,)).terms[0][0], Full().bind((5,)).terms[0][0]
    with pytest.raises(ValueError, match="4x4 and 5x5"):
        a.intersect(b)


def test_a_union_of_many_overlapping_parts_is_counted_once():
    """Fifteen windows inside one another are as many pairs as the largest; all 2^15 overlaps would take minutes."""
    nested = Neighborhood(3, boundary="truncate")
    for window in range(5, 33, 2):
        nested = nested | Neighborhood(window, boundary="truncate")
    bound = nested.bind((40, 40))
    assert len(bound.terms) == 15
    assert bound.pairs() == Neighborhood(31, boundary="truncate").bind((40, 40)).pairs()


def test_relations_that_follow_from_each_other():
    for tokens in range(1, 9):
        grid = (tokens,)
        same = [
            (Causal() & Prefix(2), Sinks(2)),
            (Sliding(tokens), Causal()),
            (Sliding(2) | Full(), Full()),
            (Sliding(2) & Full(), Sliding(2)),
            (Causal() & Sliding(5, is_causal=False), Sliding(3)),
            (Blocks(2) & Blocks(3), Blocks(6) & Blocks(2) & Blocks(3)),
            ((Sliding(2) | Sinks(1)) & Blocks(3), (Sliding(2) & Blocks(3)) | (Sinks(1) & Blocks(3))),
        ]
        for a, b in same:
            assert np.array_equal(mask_of(a.bind(grid)), mask_of(b.bind(grid))), (a, b)
            assert a.bind(grid).pairs() == b.bind(grid).pairs()
