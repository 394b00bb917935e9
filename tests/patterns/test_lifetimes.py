"""Key lifetimes: the relation, what is derived from it, and what other patterns make of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.lifetimes import alive
from windeye.patterns import (
    Blocks,
    Both,
    Causal,
    Documents,
    Expiry,
    Full,
    Neighborhood,
    Prefix,
    Sinks,
    Sliding,
    from_spec,
    parse,
)
from windeye.tiling import simulate


def table(*rows):
    return torch.tensor(rows, dtype=torch.int32)


@st.composite
def tables(draw, rank=3):
    keys = draw(st.integers(1, 12))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), keys) if rank == 3 else (keys,)
    values = st.integers(-2, keys + 3)
    return torch.tensor(draw(st.lists(values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))),
                        dtype=torch.int32).reshape(shape)  # fmt: skip


@given(tables(), st.integers(0, 14))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_everything_derived_agrees_with_the_definition(expiries, queries):
    batch, heads, keys = expiries.shape
    bound = Expiry(expiries).bind((queries,), (keys,))
    mask = bound.mask()
    assert mask.shape == (batch, heads, queries, keys)
    mask_mod = bound.mask_mod(heads=2 * heads)
    for b in range(batch):
        for h in range(heads):
            expected = alive(expiries[b, h], queries)
            assert torch.equal(mask[b, h], expected)
            assert torch.equal(bound.inverse(b, h).mask(), expected.T)
            for q in range(queries):
                assert bound.keys_of(q, b, h) == expected[q].nonzero()[:, 0].tolist()
            q, k = torch.arange(queries)[:, None], torch.arange(keys)[None, :]
            assert torch.equal(mask_mod(b, 2 * h + 1, q, k), expected)
    assert bound.pairs() == int(mask.sum())
    assert bound.relations == batch * heads
    assert bound.density() == pytest.approx(mask.double().mean().item() if mask.numel() else 0.0)
    assert bound.flops(heads=2 * heads, head_dim=3, value_dim=5, batch=batch) == 2 * 2 * int(mask.sum()) * 8


CAUSAL = [
    Causal(),
    Sliding(3),
    Sliding(3) | Sinks(2),
    Documents((4, 0, 5)) & Causal(),
    Sinks(4),
    Neighborhood(3, is_causal=True),
    Neighborhood(2, stride=2) & Causal(),
    Blocks(3) & Causal(),
]


@pytest.mark.parametrize("pattern", CAUSAL, ids=str)
def test_causal_patterns_that_forget_for_good_are_lifetimes(pattern):
    ours = Expiry.of(pattern, 9).bind((9,)).mask()[0, 0]
    assert torch.equal(ours, pattern.bind((9,)).mask())


@pytest.mark.parametrize("pattern", [Sliding(3, is_causal=False), Full(), Prefix(2), Documents((4, 5))], ids=str)
def test_a_pattern_that_shows_the_future_is_no_lifetime(pattern):
    with pytest.raises(ValueError, match=r"shows the future.*& Causal\(\)"):
        Expiry.of(pattern, 9)


def test_a_pattern_in_which_keys_come_back_is_no_lifetime():
    dilated = Neighborhood(3, dilation=2, is_causal=True)
    with pytest.raises(ValueError, match="2 apart"):
        Expiry.of(dilated, 9)
    striped = Neighborhood(4, boundary="wrap") & Causal()
    with pytest.raises(ValueError, match="seen again"):
        Expiry.of(striped, 9)


@given(tables(), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_and_and_or_are_those_of_the_masks(expiries, data):
    n = expiries.shape[-1]
    ours = Expiry(expiries)
    other = data.draw(st.sampled_from([Causal(), Sliding(2), Sinks(1) | Sliding(2), Documents((n,)) & Causal()]))
    theirs = other.bind((n,)).mask()
    mask = ours.bind((n,)).mask()
    assert torch.equal((ours & other).bind((n,)).mask(), mask & theirs)
    assert torch.equal((other & ours).bind((n,)).mask(), mask & theirs)
    assert torch.equal((other | ours).bind((n,)).mask(), mask | theirs)
    again = Expiry(expiries.flip(-1))
    assert torch.equal((ours & again).bind((n,)).mask(), mask & again.bind((n,)).mask())
    assert torch.equal((ours | again).bind((n,)).mask(), mask | again.bind((n,)).mask())


def test_and_takes_the_causal_part_of_what_it_meets_but_or_refuses_the_future():
    ours = Expiry(table(4, 2, 4, 4))
    assert (ours & Full()).table.tolist() == [4, 2, 4, 4]
    assert (ours & Documents((2, 2))).table.tolist() == [2, 2, 4, 4]
    with pytest.raises(ValueError, match="future"):
        ours | Full()


def test_what_has_no_lifetimes_is_refused():
    ours = Expiry(table(4, 2, 4, 4))
    with pytest.raises(ValueError, match="2 apart"):
        ours & Neighborhood(2, dilation=2)
    with pytest.raises(ValueError, match="use its own & and"):
        Both((Causal(), ours))
    with pytest.raises(TypeError):
        ours & 3


def test_equal_is_the_same_tensor():
    expiries = table(3, 2, 3)
    assert Expiry(expiries) == Expiry(expiries)
    assert hash(Expiry(expiries)) == hash(Expiry(expiries))
    assert Expiry(expiries) != Expiry(expiries.clone())
    assert Expiry(expiries) != Causal()
    with pytest.raises(AttributeError):
        Expiry(expiries).table = expiries


def test_it_crosses_text_only_with_its_table():
    ours = Expiry(table(3, 2, 3))
    assert from_spec(ours.spec, ours.tables) == ours
    assert repr(ours) == "Expiry(int32 [3])"
    for read in (from_spec, parse):
        with pytest.raises(ValueError, match="holds a tensor"):
            read("Expiry(table)")


def test_what_needs_interval_tables_is_refused():
    ours = Expiry(table(3, 2, 3))
    with pytest.raises(ValueError, match="no interval table"):
        simulate(ours, (3,), 1, 1)
    with pytest.raises(ValueError, match="no interval table"):
        ours.terms((3,), (3,))


def test_one_head_is_drawn():
    bound = Expiry(table(*[[[4, 2, 3, 4], [1, 2, 3, 4]]]).reshape(1, 2, 4)).bind((4,))
    assert bound.draw().splitlines() == ["◆···", "█◆··", "█·◆·", "█··◆"]
    assert bound.draw(head=1).splitlines() == ["◆···", "·◆··", "··◆·", "···◆"]


WRONG = {
    "a list": (lambda: Expiry([1, 2]), TypeError, "table must be a torch.Tensor, got list"),
    "long integers": (lambda: Expiry(table(1).long()), TypeError, r"int32, got torch.int64; .*to\(torch.int32\)"),
    "two axes": (lambda: Expiry(table([1], [1])), ValueError, r"\[batch, heads, keys\], got shape \(2, 1\)"),
    "two grid axes": (lambda: Expiry(table(1, 2)).bind((2, 1)), ValueError, r"grid of 2 axes: \(2, 1\)"),
    "lifetimes of lifetimes": (lambda: Expiry.of(Expiry(table(1, 2)), 2), TypeError, "depends on data"),
    "other keys": (lambda: Expiry(table(1, 2)).bind((3,)), ValueError, "table holds 2 keys but the sequence has 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_refused(name):
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call()
