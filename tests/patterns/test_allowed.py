"""Dense relations: what is derived from a mask, and what other patterns make of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.patterns import Allowed, Causal, Sinks, Sliding, from_spec, parse


@st.composite
def masks(draw):
    shape = tuple(draw(st.integers(1, most)) for most in (2, 3, 7, 7))
    bits = draw(st.lists(st.booleans(), min_size=torch.Size(shape).numel(), max_size=torch.Size(shape).numel()))
    return torch.tensor(bits).reshape(shape)


@given(masks())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_everything_derived_agrees_with_the_mask(mask):
    batch, heads, queries, keys = mask.shape
    bound = Allowed(mask).bind((queries,), (keys,))
    assert torch.equal(bound.mask(), mask)
    mask_mod = bound.mask_mod(heads=2 * heads)
    q, k = torch.arange(queries)[:, None], torch.arange(keys)[None, :]
    for b in range(batch):
        for h in range(heads):
            assert torch.equal(bound.head(b, h).mask(), mask[b, h])
            assert torch.equal(bound.inverse(b, h).mask(), mask[b, h].T)
            assert torch.equal(mask_mod(b, 2 * h + 1, q, k), mask[b, h])
            assert bound.head(b, h).pairs() == int(mask[b, h].sum())
            assert [bound.keys_of(i, b, h) for i in range(queries)] == [
                row.nonzero()[:, 0].tolist() for row in mask[b, h]
            ]
    assert bound.pairs() == int(mask.sum())
    assert bound.relations == batch * heads
    assert bound.density() == pytest.approx(mask.double().mean().item())
    assert bound.flops(heads=2 * heads, head_dim=3, value_dim=5, batch=batch) == 2 * 2 * int(mask.sum()) * 8


def test_combining_is_what_the_masks_say():
    mask = torch.rand(6, 6) < 0.5
    window = Sliding(2).bind((6,)).mask()
    for made, expected in (
        (Allowed(mask) & Sliding(2), mask & window),
        (Sliding(2) & Allowed(mask), mask & window),
        (Allowed(mask) | Sliding(2), mask | window),
        (Sliding(2) | Allowed(mask), mask | window),
        (Allowed(mask) & Allowed(~mask), torch.zeros_like(mask)[None, None]),
    ):
        assert isinstance(made, Allowed)
        assert torch.equal(made.mask, expected)
    many, few = torch.rand(2, 4, 6, 6) < 0.5, torch.rand(1, 2, 6, 6) < 0.5
    assert torch.equal((Allowed(many) & Allowed(few)).mask, many & few.repeat_interleave(2, dim=1))
    with pytest.raises(ValueError, match="4 and 3 heads cannot be combined"):
        Allowed(many) | Allowed(many[:, :3])


def test_it_crosses_as_spec_and_table():
    pattern = Allowed(torch.ones(2, 2, dtype=torch.bool))
    assert from_spec(pattern.spec, pattern.tables) == pattern
    assert repr(pattern) == "Allowed(bool [2, 2])"
    assert pattern != Allowed(torch.ones(2, 2, dtype=torch.bool))
    assert len({pattern, pattern}) == 1


def test_one_head_can_be_drawn():
    mask = (Causal() & (Sliding(2) | Sinks(1))).bind((4,)).mask()
    bound = Allowed(mask).bind((4,))
    assert bound.draw() == "◆···\n█◆··\n██◆·\n█·█◆"
    assert bound.head().pairs() == 9


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Allowed([[True]]), TypeError, "mask must be a torch.Tensor, got list"),
        (lambda: Allowed(torch.ones(2, 2)), TypeError, r"mask must be bool \(True is seen\), got torch.float32"),
        (lambda: Allowed(torch.ones(2, 2, 2).bool()), ValueError, r"got shape \(2, 2, 2\)"),
        (lambda: Allowed(torch.ones(2, 3).bool()).bind((3,)), ValueError, "2 queries and 3 keys but .* 3 and 3"),
        (lambda: Allowed(torch.ones(4, 4).bool()).bind((2, 2)), ValueError, "pattern of sequences, got a grid of 2"),
        (lambda: Allowed(torch.ones(4, 4).bool()).bind((4,)).terms, ValueError, r"head\(\) gives those of one"),
        (lambda: Allowed(torch.ones(4, 4).bool()).terms((4,), (4,)), ValueError, "bind it and ask for one head"),
        (lambda: parse("Allowed(3)"), ValueError, "Allowed holds a tensor, which text cannot give"),
        (lambda: Allowed(torch.ones(4, 4).bool()).bind((4,)).keys_of(4), ValueError, "query 4 lies outside"),
    ],
)
def test_wrong_calls_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
