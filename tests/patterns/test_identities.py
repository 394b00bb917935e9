"""Patterns that are other patterns in disguise, as the gna and fna specs list them."""

from itertools import product

import numpy as np
import pytest

from windeye.patterns import Blocks, Causal, Documents, Full, Halo, Inward, Neighborhood, Sliding, TileWindow

LENGTHS = range(1, 21)


def mask(pattern, *grid):
    return pattern.bind(grid).mask().numpy()


def same(a, b, *grid):
    return np.array_equal(mask(a, *grid), mask(b, *grid))


@pytest.mark.parametrize("boundary", ["clamp", "wrap"])
def test_a_window_of_the_whole_axis_is_full_attention_whatever_the_stride(boundary):
    for length in LENGTHS:
        for stride in range(1, length + 1):
            assert same(Neighborhood(length, stride, boundary=boundary), Full(), length)
            assert same(Neighborhood(-1, stride, boundary=boundary), Full(), length)
    assert same(Neighborhood((3, 4), stride=(2, 3)), Full(), 3, 4)
    assert same(Neighborhood((2, 3, 4), stride=2), Full(), 2, 3, 4)


def test_a_block_of_the_whole_axis_is_stripes_or_full_attention():
    assert same(Blocks(-1), Full(), 7)
    assert same(Blocks((-1, 3)), Blocks((5, 3)), 5, 8)
    assert same(Blocks((-1, -1)), Full(), 3, 4)
    assert np.array_equal(Blocks(-1).bind((4,), (9,)).mask().numpy(), Full().bind((4,), (9,)).mask().numpy())


def test_a_causal_window_of_the_whole_sequence_is_causal_attention_whatever_the_stride():
    for length in LENGTHS:
        for stride in range(1, length + 1):
            assert same(Neighborhood(length, stride, is_causal=True), Causal(), length)


def test_stride_one_is_neighborhood_attention():
    """fna spec: ``start = clamp(i' - W // 2, 0, Lg - W)`` in the dilation class, ``W`` keys; causal, the last ``W``."""
    for length in LENGTHS:
        for dilation in range(1, length + 1):
            for window in range(1, length // dilation + 1):
                clamped = Neighborhood(window, dilation=dilation).bind((length,))
                causal = Neighborhood(window, dilation=dilation, is_causal=True).bind((length,))
                for i in range(length):
                    residue, local = i % dilation, i // dilation
                    members = list(range(residue, length, dilation))
                    start = min(max(local - window // 2, 0), len(members) - window)
                    assert clamped.keys_of(i) == members[start : start + window]
                    assert causal.keys_of(i) == members[max(local - window + 1, 0) : local + 1]


def test_stride_equal_to_the_window_is_blocked_attention():
    for window, blocks in product(range(1, 7), range(1, 5)):
        length = window * blocks
        assert same(Neighborhood(window, stride=window), Blocks(window), length)
        assert same(Neighborhood(window, stride=window), Documents((window,) * blocks), length)
        assert same(Neighborhood(window, stride=window, is_causal=True), Blocks(window) & Causal(), length)
    assert same(Neighborhood((2, 3), stride=(2, 3)), Blocks((2, 3)), 6, 6)


def test_the_largest_dilation_is_sparse_global_attention():
    """Every query sees ``W`` keys, ``L // W`` apart, over the whole axis."""
    for length in LENGTHS:
        for window in range(1, length + 1):
            dilation = length // window
            bound = Neighborhood(window, dilation=dilation).bind((length,))
            for i in range(length):
                keys = bound.keys_of(i)
                assert len(keys) == window
                assert set(np.diff(keys)) <= {dilation}
                if length % window == 0:
                    assert keys == list(range(i % dilation, length, dilation))


def test_an_odd_number_of_tiles_is_a_neighborhood_with_the_stride_of_a_tile():
    for tile, tiles in product(range(1, 6), (1, 3, 5, 7, 9, 11)):
        for number in range(tiles, 12):
            assert same(TileWindow(tile, tiles), Neighborhood(tile * tiles, stride=tile), tile * number)
    assert same(TileWindow((2, 3), (3, 1)), Neighborhood((6, 3), stride=(2, 3)), 10, 9)


def test_an_even_number_of_tiles_is_off_by_half_a_tile():
    """The neighbourhood starts half a tile later than the window of tiles, which stays on tile borders."""
    for tile, tiles in product((2, 4, 6), (2, 4)):
        length, middle = tile * 11, tile * 5
        assert not same(TileWindow(tile, tiles), Neighborhood(tile * tiles, stride=tile), length)
        aligned = TileWindow(tile, tiles).bind((length,)).keys_of(middle)
        shifted = Neighborhood(tile * tiles, stride=tile).bind((length,)).keys_of(middle)
        assert aligned[0] % tile == 0
        assert shifted[0] == aligned[0] + tile // 2


def test_in_the_interior_a_halo_is_a_neighborhood_with_the_stride_of_a_block():
    for block, around in product(range(1, 6), range(5)):
        length = 12 * block + 8
        halo, window = (
            Halo(block, around).bind((length,)),
            Neighborhood(block + 2 * around, stride=block).bind((length,)),
        )
        inside = 0
        for i in range(length):
            first = i // block * block
            if first >= around and first + block + around <= length:
                inside += 1
                assert halo.keys_of(i) == window.keys_of(i)
            else:  # cut off here, pushed inside there
                assert set(halo.keys_of(i)) < set(window.keys_of(i))
        assert inside > length // 4
    for block in range(1, 6):
        assert same(Halo(block, 0), Blocks(block), 17)


def test_an_inward_window_is_a_neighborhood_in_space_and_everything_in_time():
    for half, frames, height, width in ((1, 3, 7, 5), (2, 2, 5, 8), (0, 4, 3, 3)):
        for train in {max(2 * half, 1), 2 * half + 1}:
            if train // 2 != half:
                continue
            window = Neighborhood((-1, 2 * half + 1, 2 * half + 1))
            assert same(Inward((-1, train, train)), window, frames, height, width)


def test_a_window_of_one_key_is_the_query_itself():
    for grid in ((9,), (3, 5), (2, 3, 4)):
        for boundary in ("clamp", "truncate", "wrap"):
            assert np.array_equal(
                mask(Neighborhood(1, boundary=boundary), *grid), np.eye(int(np.prod(grid)), dtype=bool)
            )


def test_a_window_of_one_column_is_one_dimensional():
    """An axis with a window of 1 is an axis of independent problems; an axis of length 1 is none at all."""
    for window, stride, causal in ((3, 1, False), (4, 2, False), (5, 3, True)):
        line = mask(Neighborhood(window, stride, is_causal=causal), 9)
        flags = {"stride": (stride, 1), "is_causal": (causal, False)}
        assert np.array_equal(mask(Neighborhood((window, 1), **flags), 9, 4), np.kron(line, np.eye(4, dtype=bool)))
        plane = mask(Neighborhood((window, 3), **flags), 9, 4)
        deep = Neighborhood((window, 1, 3), stride=(stride, 1, 1), is_causal=(causal, False, False))
        assert np.array_equal(mask(deep, 9, 1, 4), plane)


def test_axes_are_independent():
    """A window on a grid is the product of the windows on its axes."""
    window, stride, dilation, causal = (3, 2, 4), (2, 1, 3), (2, 3, 1), (False, True, False)
    whole = mask(Neighborhood(window, stride, dilation, causal), 7, 6, 5)
    axes = [
        mask(Neighborhood(*facts), n) for *facts, n in zip(window, stride, dilation, causal, (7, 6, 5), strict=True)
    ]
    assert np.array_equal(whole, np.kron(np.kron(axes[0], axes[1]), axes[2]))


def test_a_dilated_window_is_an_undilated_one_in_each_residue_class():
    for length, window, stride, dilation, causal in product((11, 12), (2, 3), (1, 2), (2, 3), (False, True)):
        whole = mask(Neighborhood(window, stride, dilation, causal), length)
        seen = np.zeros_like(whole)
        for residue in range(dilation):
            part = slice(residue, None, dilation)
            alone = Neighborhood(window, stride, is_causal=causal)
            seen[part, part] = mask(alone, len(range(residue, length, dilation)))
        assert np.array_equal(whole, seen)


def test_a_causal_neighborhood_is_a_sliding_window():
    for length in LENGTHS:
        for window in range(1, length + 1):
            assert same(Neighborhood(window, is_causal=True), Sliding(window), length)
            assert same(Neighborhood(window, boundary="truncate"), Sliding(window, is_causal=False), length)


def test_a_causal_window_with_stride_keeps_at_least_what_the_stride_leaves():
    """gna spec: the first queries of a group see fewer keys, at least ``W - s + 1`` away from the start."""
    for length, window in product((16, 17), range(1, 9)):
        for stride in range(1, window + 1):
            counts = mask(Neighborhood(window, stride, is_causal=True), length).sum(axis=1)
            away = counts[window - 1 :]
            assert away.max() <= window
            # A last group that is not full is led by its last member: it sees no less.
            assert away.min() >= window - stride + 1


def test_away_from_the_border_windows_move_with_the_query():
    for window, stride, boundary in product((1, 4, 5), (1, 2), ("clamp", "truncate", "wrap")):
        if stride > window:
            continue
        bound = Neighborhood(window, stride, boundary=boundary).bind((24,))
        for i in range(8, 14):
            assert bound.keys_of(i + stride) == [key + stride for key in bound.keys_of(i)]


def test_the_three_boundaries_differ_at_the_border_only():
    for window, length in ((4, 11), (5, 12)):
        clamp, cut, wrap = (Neighborhood(window, boundary=b).bind((length,)) for b in ("clamp", "truncate", "wrap"))
        left, right = window // 2, window - window // 2 - 1
        for i in range(length):
            reach = range(i - left, i + right + 1)
            assert cut.keys_of(i) == [key for key in reach if 0 <= key < length]
            assert wrap.keys_of(i) == sorted(key % length for key in reach)
            assert (clamp.keys_of(i) == cut.keys_of(i)) is (left <= i < length - right)
            assert len(clamp.keys_of(i)) == window
