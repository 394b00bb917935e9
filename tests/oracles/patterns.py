"""Random patterns that fit a pair of grids: every class, every parameter mixed over axes, and combinations of them."""

from functools import reduce
from operator import and_, or_

from hypothesis import assume
from hypothesis import strategies as st

from windeye.patterns import (
    Blocks,
    Causal,
    Documents,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
)

MOST_TOKENS_PER_AXIS = {1: 14, 2: 6, 3: 4}
BOUNDARIES = ("clamp", "truncate", "wrap")


@st.composite
def grids(draw, rank=None, same=None):
    """A query grid and a key grid, equal ones half of the time."""
    rank = draw(st.integers(1, 3)) if rank is None else rank
    shapes = st.tuples(*[st.integers(1, MOST_TOKENS_PER_AXIS[rank])] * rank)
    grid = draw(shapes)
    same = draw(st.booleans()) if same is None else same
    return grid, grid if same else draw(shapes)


def _per_axis(draw, keys, value):
    """``value(length)`` drawn for every axis on its own, or once for the shortest axis and written as one number."""
    if draw(st.booleans()):
        return draw(value(min(keys)))
    return tuple(draw(value(length)) for length in keys)


def _neighborhood(draw, keys):
    boundary = draw(st.sampled_from(BOUNDARIES))
    axes = []
    for length in keys:
        dilations = [d for d in (1, 2, 3) if d <= length and (boundary != "wrap" or length % d == 0)]
        dilation = draw(st.sampled_from(dilations))
        window = draw(st.integers(1, length // dilation))
        stride = draw(st.integers(1, window))
        whole = window == length // dilation and draw(st.booleans())
        axes.append((-1 if whole else window, stride, dilation, draw(st.booleans())))
    window, stride, dilation, causal = ([*column] for column in zip(*axes, strict=True))
    written = [tuple(column) if len({*column}) > 1 else column[0] for column in (window, stride, dilation, causal)]
    return Neighborhood(*written, boundary)


def _kinds(grid, keys):
    """For each class that is defined on these grids, how to draw one of its patterns."""
    at_least_one = lambda length: st.integers(1, length + 1)  # noqa: E731
    kinds = {
        Full: lambda _: Full(),
        Neighborhood: lambda draw: _neighborhood(draw, keys),
        Blocks: lambda draw: _blocks(draw, keys),
        Halo: lambda draw: Halo(
            _per_axis(draw, keys, at_least_one), _per_axis(draw, keys, lambda length: st.integers(0, length))
        ),
        TileWindow: lambda draw: _tile_window(draw, keys),
        Inward: lambda draw: Inward(_per_axis(draw, keys, lambda length: st.sampled_from([-1, *range(1, length + 3)]))),
    }
    if grid[1:] == keys[1:]:
        kinds[Causal] = lambda _: Causal()
    if len(grid) == 1:
        kinds[Sliding] = lambda draw: Sliding(draw(at_least_one(keys[0])), is_causal=draw(st.booleans()))
        kinds[Sinks] = lambda draw: Sinks(draw(st.integers(0, keys[0] + 1)))
        kinds[Prefix] = lambda draw: Prefix(draw(st.integers(0, keys[0] + 1)))
        if grid == keys:
            kinds[Documents] = lambda draw: _documents(draw, keys[0])
    return kinds


def _blocks(draw, keys):
    axes = [(size, draw(st.integers(0, size - 1))) for size in (draw(st.integers(1, n + 1)) for n in keys)]
    sizes, shifts = zip(*axes, strict=True)
    return Blocks(sizes, shift=shifts)


def _tile_window(draw, keys):
    axes = [(tile, draw(st.integers(1, -(-n // tile)))) for n in keys for tile in [draw(st.integers(1, n))]]
    tile, tiles = zip(*axes, strict=True)
    return TileWindow(tile, tiles)


def _documents(draw, tokens):
    cuts = sorted(draw(st.lists(st.integers(0, tokens), max_size=3)))
    return Documents(tuple(b - a for a, b in zip([0, *cuts], [*cuts, tokens], strict=True)))


@st.composite
def single(draw, grid, keys):
    """One pattern of any class that these grids allow."""
    kinds = _kinds(grid, keys)
    return kinds[draw(st.sampled_from(sorted(kinds, key=lambda kind: kind.__name__)))](draw)


@st.composite
def combined(draw, grid, keys, most=4):
    """One pattern, or up to ``most`` joined by ``&`` and ``|`` in any nesting that stays within the limit of parts."""
    parts = [draw(single(grid, keys)) for _ in range(draw(st.integers(1, most)))]
    while len(parts) > 1:
        number = draw(st.integers(2, len(parts)))
        join = draw(st.sampled_from((and_, or_)))
        parts = [reduce(join, parts[:number]), *parts[number:]]
    try:
        parts[0].bind(grid, keys)
    except ValueError as error:
        assume("parts, at most" not in str(error))
        raise
    return parts[0]


@st.composite
def bindings(draw, rank=None, same=None, most=4):
    """``(pattern, grid, grid_kv)`` that fit each other."""
    grid, keys = draw(grids(rank, same))
    return draw(combined(grid, keys, most)), grid, keys
