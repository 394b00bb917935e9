"""Every neighbourhood on a short axis against the oracle, the closed form of its reverse, and its pair count."""

from itertools import product

import numpy as np
import pytest

from oracles.windows import as_mask, neighborhood, relation
from windeye.patterns import Blocks, Halo, Inward, Neighborhood, Sinks, Sliding, TileWindow
from windeye.patterns.table import AxisTable


def settings(length):
    """Every valid ``(window, stride, dilation, causal)`` on an axis."""
    for dilation in range(1, length + 1):
        for window in range(1, length // dilation + 1):
            for stride in range(1, window + 1):
                yield from ((window, stride, dilation, causal) for causal in (False, True))


def check(length, window, stride, dilation, causal, boundary):
    case = f"L={length} W={window} s={stride} d={dilation} causal={causal} {boundary}"
    bound = Neighborhood(window, stride, dilation, causal, boundary).bind((length,))
    rows = [neighborhood(i, length, window, stride, dilation, causal, boundary) for i in range(length)]
    expected = as_mask(rows, length)
    mask = bound.mask().numpy()
    assert np.array_equal(mask, expected), case
    reverse = bound.inverse()
    assert np.array_equal(reverse.mask().numpy(), expected.T), case
    assert bound.pairs() == reverse.pairs() == sum(map(len, rows)), case
    return rows


def test_the_number_of_settings():
    # Counted by hand for L = 4: W = 1..4 undilated 1+2+3+4, d = 2 with W = 1, 2 three more, d = 3 and d = 4 one each.
    assert len(list(settings(4))) == 2 * (10 + 3 + 1 + 1)


@pytest.mark.parametrize("length", range(1, 17))
def test_every_clamped_window(length):
    for window, stride, dilation, causal in settings(length):
        rows = check(length, window, stride, dilation, causal, "clamp")
        if not causal:
            assert {len(row) for row in rows} == {window}
        assert all(i in row for i, row in enumerate(rows))  # stride <= window: the query sees itself


@pytest.mark.parametrize("boundary", ["truncate", "wrap"])
@pytest.mark.parametrize("length", range(1, 10))
def test_every_truncated_and_wrapped_window(length, boundary):
    for window, stride, dilation, causal in settings(length):
        if boundary == "wrap" and length % dilation:
            with pytest.raises(ValueError, match=f'"wrap" needs dilation {dilation} to divide the {length} keys'):
                Neighborhood(window, stride, dilation, causal, "wrap").bind((length,))
        else:
            check(length, window, stride, dilation, causal, boundary)


@pytest.mark.parametrize("length", range(17, 26))
def test_every_window_without_stride_up_to_25(length):
    for window, stride, dilation, causal in settings(length):
        if stride == 1:
            check(length, window, stride, dilation, causal, "clamp")


@pytest.mark.parametrize("length", range(1, 26))
def test_reverse_relation_has_the_closed_form_of_the_spec(length):
    """gna spec: which queries see key ``j``, undilated; for stride 1 it is the form of the fna spec."""
    for window, stride, dilation, causal in settings(length):
        if dilation > 1:
            continue
        left, right = window // 2, window // 2 + window % 2 - 1
        table = Neighborhood(window, stride, is_causal=causal).bind((length,)).inverse().terms[0][0]
        for j in range(length):
            if causal:
                first = j
                stop = min(((j + window) // stride + (j + window >= length)) * stride, length)
            else:
                off = stride - stride // 2 - 1
                first = 0 if j < window else (j - right + off) // stride * stride
                stop = length if j >= length - window else (j + left + off + 1) // stride * stride
            first, stop = max(first, 0), min(stop, length)
            assert (int(table.start[j]), int(table.stop[j])) == (first, stop), (length, window, stride, causal, j)
            if stride == 1 and not causal:
                fna = (0 if j < window else j - right, length if j >= length - window else j + left + 1)
                assert (first, stop) == fna
            if stride == 1 and causal:
                assert (first, stop) == (j, min(j + window, length))


@pytest.mark.parametrize("length", range(1, 13))
def test_every_named_window(length):
    """The relatives of the neighbourhood, each with all its settings on an axis."""
    patterns = [Sliding(w, is_causal=c) for w, c in product(range(1, length + 3), (True, False))]
    patterns += [Blocks(size, shift) for size in range(1, length + 2) for shift in range(size)]
    patterns += [Halo(block, halo) for block, halo in product(range(1, length + 2), range(length + 1))]
    patterns += [TileWindow(t, k) for t in range(1, length + 1) for k in range(1, -(-length // t) + 1)]
    patterns += [Inward(train) for train in (-1, *range(1, length + 3))]
    patterns += [Sinks(n) for n in range(length + 2)]
    for pattern in patterns:
        expected = relation(pattern, (length,))
        bound = pattern.bind((length,))
        assert np.array_equal(bound.mask().numpy(), expected), pattern
        assert np.array_equal(bound.inverse().mask().numpy(), expected.T), pattern
        assert bound.pairs() == expected.sum(), pattern


def test_a_table_keeps_its_rule():
    """The rule that every other statement is derived from, on a table written by hand: -1, 1 and 3 of 6, wrapped."""
    table = AxisTable(np.array([-1, 2, 4]), np.array([4, 2, 6]), 2, 6)
    assert table.wraps
    assert table.counts().tolist() == [3, 0, 1]
    assert table.mask().astype(int).tolist() == [[0, 1, 0, 1, 0, 1], [0] * 6, [0, 0, 0, 0, 1, 0]]
    pieces = [piece.mask().astype(int) for piece in table.unwrapped()]
    assert not any(piece.wraps for piece in table.unwrapped())
    assert sum(pieces).tolist() == table.mask().astype(int).tolist()  # disjoint


def test_a_table_refuses_to_see_a_key_twice():
    with pytest.raises(ValueError, match="spans 5 keys on an axis of 4"):
        AxisTable(np.array([0]), np.array([5]), 1, 4)
