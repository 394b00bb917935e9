"""Patterns are values: equal, hashable, cached by what they say; what says nothing is refused when it is said."""

import numpy as np
import pytest

from windeye.patterns import (
    Blocks,
    Both,
    Causal,
    Documents,
    Either,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
)

ALL = [
    Full(),
    Causal(),
    Neighborhood(3),
    Neighborhood(3, stride=2),
    Neighborhood(3, dilation=2),
    Neighborhood(3, is_causal=True),
    Neighborhood(3, boundary="truncate"),
    Neighborhood((3, 3)),
    Sliding(3),
    Sliding(3, is_causal=False),
    Blocks(3),
    Blocks(3, shift=1),
    Halo(3, 1),
    TileWindow(3, 1),
    Inward(3),
    Documents((3, 1)),
    Sinks(3),
    Prefix(3),
    Sinks(3) & Sliding(3),
    Sinks(3) | Sliding(3),
]


def test_every_pattern_equals_itself_and_no_other():
    for i, a in enumerate(ALL):
        for j, b in enumerate(ALL):
            assert (a == b) is (i == j), (a, b)
    assert len(set(ALL)) == len({p.spec for p in ALL}) == len(ALL)


def test_however_a_value_is_written_it_is_the_same_pattern():
    same = [
        (Neighborhood(np.int64(3)), Neighborhood(3)),
        (Neighborhood([3, 5], is_causal=[True, False]), Neighborhood((3, 5), is_causal=(True, False))),
        (Documents([3, 4]), Documents((3, 4))),
        (Documents(np.array([3, 4])), Documents((3, 4))),
        (Both([Full(), Causal()]), Full() & Causal()),
        (Sinks(1) | Sliding(2) | Prefix(3), Either((Sinks(1), Sliding(2), Prefix(3)))),
        (Sinks(1) | (Sliding(2) | Prefix(3)), Either((Sinks(1), Sliding(2), Prefix(3)))),
        (Sinks(1) & (Sliding(2) & Prefix(3)), Both((Sinks(1), Sliding(2), Prefix(3)))),
    ]
    for a, b in same:
        assert a == b
        assert hash(a) == hash(b)
        assert a.spec == b.spec


def test_a_pattern_cannot_be_changed():
    with pytest.raises(AttributeError):
        Neighborhood(3).kernel_size = 5


def test_binding_is_cached_by_value():
    bound = Neighborhood(3).bind((8, 9))
    assert Neighborhood(3).bind([8, 9]) is bound
    assert Neighborhood(np.int64(3)).bind((np.int64(8), 9), (8, 9)) is bound
    assert Neighborhood(3, stride=2).bind((8, 9)) is not bound
    assert Neighborhood(3).bind((8, 9), (9, 9)) is not bound


@pytest.mark.parametrize("grids", [((0,), (0,)), ((0,), (4,)), ((4,), (0,)), ((3, 0), (3, 0)), ((3, 2), (0, 2))])
def test_a_grid_without_tokens_has_no_pairs(grids):
    bound = Full().bind(*grids)
    assert bound.mask().shape == (bound.tokens, bound.tokens_kv)
    assert (bound.pairs(), bound.density(), bound.flops()) == (0, 0.0, 0)


def test_numbers_of_a_worked_example():
    bound = Neighborhood((3, 5), stride=(1, 2)).bind((6, 9))
    assert (bound.rank, bound.tokens, bound.tokens_kv) == (2, 54, 54)
    assert bound.pairs() == 54 * 15
    assert bound.density() == 15 / 54
    assert bound.flops() == 2 * 54 * 15 * 128
    assert bound.flops(heads=3, head_dim=8, value_dim=4, batch=2) == 2 * 2 * 3 * 54 * 15 * 12


def test_a_query_is_a_number_or_coordinates():
    bound = Neighborhood(3).bind((4, 5))
    assert bound.coordinates(7) == bound.coordinates(np.int64(7)) == bound.coordinates((1, 2)) == (1, 2)
    assert bound.keys_of(7) == bound.keys_of((1, 2)) == [1, 2, 3, 6, 7, 8, 11, 12, 13]


BOUND = Neighborhood(3).bind((4, 5))
WRONG = {
    "query past the last": (lambda: BOUND.keys_of(20), ValueError, r"query 20 lies outside .*\(4, 5\).* 20 tokens"),
    "a query before the first": (lambda: BOUND.keys_of(-1), ValueError, "query -1 lies outside"),
    "coordinates outside": (lambda: BOUND.keys_of((1, 5)), ValueError, r"\(1, 5\) lies outside .*axis 1 .* 0 to 4"),
    "negative coordinates": (lambda: BOUND.keys_of((-1, 2)), ValueError, "axis 0 goes from 0 to 3"),
    "too few coordinates": (lambda: BOUND.keys_of((1,)), ValueError, r"query \(1,\) has 1 coordinates .* 2 axes"),
    "sliding causality as a number": (lambda: Sliding(3, is_causal=1), TypeError, "is_causal must be a bool, got 1"),
    "sliding causality as nothing": (lambda: Sliding(3, is_causal=None), TypeError, "must be a bool, got None"),
    "sliding over two axes": (lambda: Sliding((3, 3)), TypeError, r"window must be an integer, got \(3, 3\)"),
    "causality of no axis": (lambda: Neighborhood(3, is_causal=()), TypeError, r"tuple of bools, got \(\)"),
    "causality of a mixed tuple": (lambda: Neighborhood(3, is_causal=(True, 0)), TypeError, r"bools, got \(True, 0\)"),
    "causality of other axes": (
        lambda: Neighborhood(3, is_causal=(True, False)).bind((8,)), ValueError, r"is_causal .* has 2 entries .*1 axes",
    ),
    "window of no axis": (lambda: Neighborhood(()), ValueError, r"kernel_size must name at least one axis, got \(\)"),
    "window of -2": (lambda: Neighborhood((3, -2)), ValueError, r"kernel_size\[1\] must be at least 1 or -1, got -2"),
    "dilation of zero": (lambda: Neighborhood(3, dilation=0), ValueError, "dilation must be at least 1, got 0"),
    "boundary in a list": (lambda: Neighborhood(3, boundary=["wrap"]), ValueError, r"boundary must be .*\['wrap'\]"),
    "dilation of a whole axis that is too long": (
        lambda: Neighborhood(-1, dilation=9).bind((8,)), ValueError, "axis 0 has 8",
    ),
    "stride past a whole axis": (
        lambda: Neighborhood(-1, stride=9).bind((8,)), ValueError, "stride 9 is larger than kernel_size 8 on axis 0",
    ),
    "keys too few for the window": (
        lambda: Neighborhood(5).bind((8, 8), (8, 4)), ValueError, "needs 5 keys but axis 1 has 4; .*is 4",
    ),
    "no documents": (lambda: Documents(()), ValueError, "at least one document"),
    "documents of nothing": (lambda: Documents(None), TypeError, "lengths must be a tuple of integers, .*None"),
    "documents in words": (lambda: Documents("34"), TypeError, r"lengths\[0\] must be an integer, got '3'"),
    "documents across lengths": (lambda: Documents((3,)).bind((3,), (4,)), ValueError, "equal .* lengths, got 3 and 4"),
    "documents on a picture": (lambda: Documents((12,)).bind((3, 4)), ValueError, "Documents is defined on a sequence"),
    "sinks on a picture": (lambda: Sinks(1).bind((3, 4)), ValueError, "Sinks is defined on a sequence"),
    "prefix on a picture": (lambda: Prefix(1).bind((3, 4)), ValueError, r"Prefix is defined on a sequence.*\(3, 4\)"),
    "block of zero": (lambda: Blocks(0), ValueError, "size must be at least 1 or -1, got 0"),
    "shift of other axes": (lambda: Blocks(3, shift=(1, 1)).bind((6,)), ValueError, r"shift \(1, 1\) has 2 entries"),
    "halo as a float": (lambda: Halo(3, 1.5), TypeError, "halo must be an integer, got 1.5"),
    "tiles on one of two axes": (
        lambda: TileWindow(2, (3, 4)).bind((6, 6)), ValueError, "tiles 4 is larger .* 3 tiles of 2 keys on axis 1",
    ),
    "nothing combined": (lambda: Both(()), ValueError, r"Both needs at least one pattern, got \(\)"),
    "a pattern where members belong": (lambda: Either(Full()), TypeError, r"tuple of patterns, got Full\(\)"),
    "a class among members": (lambda: Either((Full(), Causal)), TypeError, "made of patterns, got <class"),
    "or with words": (lambda: Full() | "causal", TypeError, "unsupported operand"),
    "grid of floats": (lambda: Full().bind((4.0,)), TypeError, r"grid\[0\] must be an integer, got 4.0"),
    "grid of bools": (lambda: Full().bind((4,), (True,)), TypeError, r"grid_kv\[0\] must be an integer, got True"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_named(call, kind, message):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert caught.type is kind
