"""What all kernels do with a box of tokens: where its tokens are, what they see, and fetching their rows."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def coordinates(
    axis0, axis1, axis2, box, boxes1, boxes2, SIZE0: tl.constexpr, SIZE1: tl.constexpr, SIZE2: tl.constexpr
):
    """The three coordinates of each token of a box, -1 where it has none."""
    lane = tl.arange(0, SIZE0 * SIZE1 * SIZE2)
    last = tl.load(axis2 + (box % boxes2) * SIZE2 + lane % SIZE2)
    second = tl.load(axis1 + (box // boxes2 % boxes1) * SIZE1 + lane // SIZE2 % SIZE1)
    first = tl.load(axis0 + (box // (boxes2 * boxes1)) * SIZE0 + lane // (SIZE2 * SIZE1))
    return first, second, last


@triton.jit
def is_token(c0, c1, c2):
    """Which lanes hold a token."""
    return (c0 >= 0) & (c1 >= 0) & (c2 >= 0)


@triton.jit
def offsets(c0, c1, c2, stride0, stride1, stride2):
    """Of tokens from the first one, in elements; 0 where there is none."""
    place = c0.to(tl.int64) * stride0 + c1.to(tl.int64) * stride1 + c2.to(tl.int64) * stride2
    return tl.where(is_token(c0, c1, c2), place, 0)


@triton.jit
def rows(base, offset, there, dim_stride, dims: tl.constexpr, WIDTH: tl.constexpr):
    """[tokens, WIDTH] of a tensor, zero where there is no token or coordinate."""
    dim = tl.arange(0, WIDTH)
    inside = there[:, None] & (dim < dims)[None, :]
    return tl.load(base + offset[:, None] + dim.to(tl.int64)[None, :] * dim_stride, mask=inside, other=0.0)


@triton.jit
def store_rows(base, offset, there, tile, dims: tl.constexpr, WIDTH: tl.constexpr):
    """Into a tensor that is dense along its last axis."""
    dim = tl.arange(0, WIDTH)
    inside = there[:, None] & (dim < dims)[None, :]
    tl.store(base + offset[:, None] + dim[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """``a @ b``, summed in float32; "wide" factors are made float32 first, because the interpreter takes the bits of
    bfloat16 for integers."""
    if PRECISION == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def within(query, key, start, span, place):
    """Whether one axis of one term shows the key coordinates to those of the queries, broadcast against each other."""
    table = tl.load(place)
    length = tl.load(place + 1)
    step = tl.load(place + 2)
    at = table + tl.maximum(query, 0)
    distance = key - tl.load(start + at)
    distance = tl.where(distance < 0, distance + length, distance)
    return (distance < tl.load(span + at)) & (distance % step == 0)


@triton.jit
def seen(q0, q1, q2, k0, k1, k2, start, span, place, RANK: tl.constexpr, TERMS: tl.constexpr):
    """Whether queries see keys, by the tables of the pattern; coordinates are broadcast against each other."""
    shown = (q2 >= 0) & (k2 < 0)  # nothing, in the shape of all pairs
    for term in tl.static_range(TERMS):
        here = within(q2, k2, start, span, place + (3 * term + 2) * 3)
        if RANK > 1:
            here = here & within(q1, k1, start, span, place + (3 * term + 1) * 3)
        if RANK > 2:
            here = here & within(q0, k0, start, span, place + 3 * term * 3)
        shown = shown | here
    return shown & is_token(q0, q1, q2) & is_token(k0, k1, k2)
