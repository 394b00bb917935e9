"""Where tokens lie on a picture: odd sizes, images that are resampled and filled up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.inspection.images.placement import Placement, on_tokens

sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 2, 4, 8, 32]))
def test_weights_on_pixels_sum_to_those_of_the_tokens(seen_h, seen_w, photo_h, photo_w, stride):
    grid = (-(-seen_h // stride), -(-seen_w // stride))
    place = Placement.of(grid, stride, (seen_h, seen_w), (photo_h, photo_w))
    assert place.grid == grid
    assert (place.rows[0], place.columns[0], place.rows[-1], place.columns[-1]) == (0, 0, photo_h, photo_w)
    weights = np.random.default_rng(0).random((3, *grid))
    pixels = place.on_pixels(weights, (photo_h, photo_w))
    assert pixels.shape == (3, photo_h, photo_w)
    np.testing.assert_allclose(pixels.sum(axis=(1, 2)), weights.sum(axis=(1, 2)), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([1, 2, 4, 8]), st.data())
def test_at_its_own_size_a_token_is_a_block_of_pixels(height, width, stride, data):
    """By definition: pixel (y, x) belongs to token (y // stride, x // stride), whose weight it shares evenly."""
    grid = (-(-height // stride), -(-width // stride))
    place = Placement.of(grid, stride, (height, width), (height, width))
    weights = np.random.default_rng(1).random(grid)
    pixels = place.on_pixels(weights, (height, width))
    blocks = np.zeros((height, width))
    for i in range(grid[0]):
        for j in range(grid[1]):
            cell = blocks[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            cell[:] = weights[i, j] / cell.size
            part = pixels[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            assert part.sum() == pytest.approx(weights[i, j])
    np.testing.assert_allclose(pixels, blocks)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    assert place.token((y, x)) == (y // stride, x // stride)
    left, top, right, bottom = place.box(place.token((y, x)))
    assert left <= x < right
    assert top <= y < bottom


def test_a_pixel_on_a_border_is_shared():
    place = Placement.of((1, 2), 1, (1, 2), (1, 3))
    np.testing.assert_allclose(place.on_pixels(np.array([[0.6, 0.4]]), (1, 3)), [[0.4, 1 / 3, 0.8 / 3]])


def test_what_a_model_leaves_out_belongs_to_the_nearest_token():
    place = Placement.of((2, 2), 4, (11, 9), (11, 9))
    assert place.token((10, 8)) == (1, 1)
    assert place.rows == (0, 4, 11)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.sampled_from([2, 4, 8, 32]), st.data())
def test_a_pixel_belongs_to_the_token_whose_middle_is_nearest(side, stride, data):
    middle = data.draw(st.floats(0, (stride - 1) / 2))
    place = Placement.of((-(-side // stride), 1), stride, (side, 1), (side, 1), middle)
    for y in range(side):
        row, _ = place.token((y, 0))
        away = [abs(middle + stride * token - y) for token in range(place.grid[0])]
        assert away[row] <= min(away) + 1e-9
    top = place.across(0, 0)[1] - 0.5
    assert top == pytest.approx(middle)


def test_places_between_tokens_go_on_beyond_the_map():
    place = Placement.of((2, 2), 4, (8, 7), (8, 7))
    assert place.across(0, 0) == (2, 2)
    assert place.across(1.5, -1) == (8, -2)


def test_weights_on_padding_are_cut_off_and_shared_where_positions_are_several_tokens():
    weights = np.random.default_rng(2).random((2, 3, 3))
    assert np.array_equal(on_tokens(weights, (2, 3)), weights[:, :2])
    spread = on_tokens(weights, (5, 7), span=(2, 3))
    assert spread.shape == (2, 5, 7)
    np.testing.assert_allclose(spread.sum(axis=(1, 2)), weights.sum(axis=(1, 2)))
    np.testing.assert_allclose(spread[:, 4, 6], weights[:, 2, 2])
    np.testing.assert_allclose(spread[:, 0, 0], weights[:, 0, 0] / 6)
    np.testing.assert_allclose(on_tokens(weights, (3, 5), span=(1, 5 / 3))[:, 0, 1], weights[:, 0, :2] @ [0.4, 0.2])
