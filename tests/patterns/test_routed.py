"""Chosen regions: what is derived from an index, and what an index may hold."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.patterns import Allowed, Expiry, Full, Routed, Sliding, from_spec, parse


@st.composite
def routings(draw):
    """A pattern and two grids of one to three axes."""
    rank = draw(st.integers(1, 3))
    counts = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    grid, grid_kv = (tuple(n * draw(st.integers(1, 2)) for n in counts) for _ in range(2))
    regions = torch.Size(counts).numel()
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), regions, draw(st.integers(0, 3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return Routed(torch.randint(-1, regions + 1, shape, generator=generator), counts), grid, grid_kv


def relation(pattern, grid, grid_kv):
    """Pair by pair."""
    index = pattern.index.tolist()
    places, places_kv = list(product(*map(range, grid))), list(product(*map(range, grid_kv)))

    def region(place, sides):
        number = 0
        for at, side, count in zip(place, sides, pattern.regions, strict=True):
            number = number * count + at * count // side
        return number

    def seen(chosen):
        return [[region(key, grid_kv) in chosen[region(query, grid)] for key in places_kv] for query in places]

    return torch.tensor([[seen(head) for head in heads] for heads in index])


@given(routings())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_everything_derived_is_the_relation_pair_by_pair(routing):
    pattern, grid, grid_kv = routing
    bound, mask = pattern.bind(grid, grid_kv), relation(*routing)
    batch, heads = mask.shape[:2]
    assert torch.equal(bound.mask(), mask)
    assert bound.pairs() == int(mask.sum())
    assert bound.relations == batch * heads
    assert bound.density() == pytest.approx(mask.double().mean().item())
    assert bound.flops(heads=2 * heads, head_dim=3, value_dim=5, batch=batch) == 2 * 2 * int(mask.sum()) * 8
    mask_mod = bound.mask_mod(heads=2 * heads)
    q, k = torch.arange(bound.tokens)[:, None], torch.arange(bound.tokens_kv)[None, :]
    for b, h in product(range(batch), range(heads)):
        assert torch.equal(bound.head(b, h).mask(), mask[b, h])
        assert torch.equal(bound.inverse(b, h).mask(), mask[b, h].T)
        assert torch.equal(mask_mod(b, 2 * h + 1, q, k), mask[b, h])
        for number, at in enumerate(product(*map(range, grid))):
            assert bound.keys_of(at, b, h) == mask[b, h, number].nonzero()[:, 0].tolist()


def test_a_region_chosen_twice_is_seen_once_and_no_number_is_nothing():
    once = Routed(torch.tensor([[[1], [0]]]), 2).bind((4,))
    more = Routed(torch.tensor([[[1, -1, 1, 7], [0, 0, 2, -5]]]), 2).bind((4,))
    assert torch.equal(once.mask(), more.mask())
    assert once.pairs() == more.pairs() == 8


def test_all_regions_in_any_order_are_everything():
    index = torch.stack([torch.randperm(6) for _ in range(6)])[None]
    assert torch.equal(Routed(index, (2, 3)).bind((4, 6)).mask()[0, 0], Full().bind((4, 6)).mask())


@given(routings())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_an_index_may_say_itself_how_the_axes_are_cut(routing):
    pattern, grid, grid_kv = routing
    same = Routed(torch.unflatten(pattern.index, 2, pattern.regions))
    assert torch.equal(same.bind(grid, grid_kv).mask(), pattern.bind(grid, grid_kv).mask())
    assert same.cut(grid) == pattern.cut(grid)
    assert same.spec == "Routed(index, None)"
    assert from_spec(same.spec, same.tables) == same != pattern


def test_it_crosses_as_spec_and_table():
    index = torch.zeros(1, 4, 2, dtype=torch.int64)
    for regions in (4, (2, 2)):
        pattern = Routed(index, regions)
        assert from_spec(pattern.spec, pattern.tables) == pattern
        assert hash(from_spec(pattern.spec, pattern.tables)) == hash(pattern)
        assert pattern != Routed(index.clone(), regions)
    assert repr(pattern) == "Routed(int64 [1, 4, 2], (2, 2))"
    assert pattern != Routed(index, 4)


def test_over_a_sequence_it_combines_with_masks():
    routed = Routed(torch.tensor([[[1], [0]]]), 2)
    mask = torch.rand(4, 4) < 0.5
    for made in (routed & Allowed(mask), Allowed(mask) & routed):
        assert torch.equal(made.mask[0, 0], mask & routed.bind((4,)).mask()[0, 0])
    for made in (routed | Allowed(mask), Allowed(mask) | routed):
        assert torch.equal(made.mask[0, 0], mask | routed.bind((4,)).mask()[0, 0])


INDEX = torch.zeros(1, 4, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: Routed([[0]], 1), TypeError, "index must be a torch.Tensor, got list"),
        (lambda: Routed(INDEX.float(), 4), TypeError, "index must be int32 or int64, got torch.float32"),
        (lambda: Routed(INDEX[0], 4), ValueError, r"\[batch, heads, regions, keep\], got \(4, 2\)"),
        (lambda: Routed(INDEX), ValueError, r"\[batch, heads, \*regions, keep\], got \(1, 4, 2\)"),
        (lambda: Routed(INDEX[None]).bind((4, 4)), ValueError, "index has 1 axes of regions but the grid has 2 axes"),
        (lambda: Routed(INDEX, 0), ValueError, "regions must be at least 1, got 0"),
        (lambda: Routed(INDEX, (2, 3)).bind((4, 6)), ValueError, r"holds 4 regions but regions \(2, 3\) .* are 6"),
        (lambda: Routed(INDEX, (2, 2)).bind((4, 7)), ValueError, r"grid\[1\] is 7, which 2 regions do not divide"),
        (lambda: Routed(INDEX, 4).bind((4,), (6,)), ValueError, r"grid_kv\[0\] is 6, which 4 regions do not divide"),
        (lambda: Routed(INDEX, 4).bind((4,)).terms, ValueError, r"head\(\) gives those of one"),
        (lambda: Routed(INDEX, 4).terms((4,), (4,)), ValueError, "bind it and ask for one head"),
        (lambda: Routed(INDEX, 4) & Routed(INDEX, 4), ValueError, "combines with no pattern but Allowed"),
        (lambda: Full() | Routed(INDEX, 4), ValueError, "combines with no pattern but Allowed"),
        (lambda: Routed(INDEX, 4) & Sliding(2), ValueError, "combines with no pattern but Allowed"),
        (lambda: parse("Routed(3)"), ValueError, "Routed holds a tensor, which text cannot give"),
        (lambda: Routed(INDEX, 4).bind((4,)).keys_of(4), ValueError, "query 4 lies outside"),
    ],
)  # fmt: skip
def test_errors_name_what_does_not_fit(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_lifetimes_refuse_to_combine():
    lives = Expiry(torch.tensor([4, 4, 4, 4], dtype=torch.int32))
    with pytest.raises((TypeError, ValueError)):
        _ = lives & Routed(INDEX, 4)
