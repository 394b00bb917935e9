"""What all kernels do with a box of tokens: where its tokens are and fetching their rows."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def along(box, lane, length, step, row, SIZE: tl.constexpr):
    """Coordinates of the lanes of one axis, -1 beyond its end. Computed, not fetched: the compiler fetches rows ahead
    whose addresses do not hang on other fetches."""
    at = box // row + (box % row * SIZE + lane) * step
    return tl.where(at < length, at, -1)


@triton.jit
def coordinates(side, box, SIZE: tl.constexpr):
    """The three coordinates of each token of a box, -1 where it has none."""
    lane = tl.arange(0, SIZE[0] * SIZE[1] * SIZE[2])
    box0, box1, box2 = box // (side.boxes2 * side.boxes1), box // side.boxes2 % side.boxes1, box % side.boxes2
    first = along(box0, lane // (SIZE[2] * SIZE[1]), side.length0, side.step0, side.row0, SIZE[0])
    second = along(box1, lane // SIZE[2] % SIZE[1], side.length1, side.step1, side.row1, SIZE[1])
    return first, second, along(box2, lane % SIZE[2], side.length2, side.step2, side.row2, SIZE[2])


@triton.jit
def is_token(at):
    """Which lanes hold a token."""
    return (at[0] >= 0) & (at[1] >= 0) & (at[2] >= 0)


@triton.jit
def number(at, side):
    """Of each token, row-major; some number where there is none."""
    first, second, last = tl.maximum(at[0], 0), tl.maximum(at[1], 0), tl.maximum(at[2], 0)
    return (first * side.length1 + second) * side.length2 + last


@triton.jit
def rows(view, batch, head, at, dims: tl.constexpr, WIDTH: tl.constexpr):
    """[tokens, WIDTH] of a tensor, zero where there is no token or coordinate."""
    dim = tl.arange(0, WIDTH)
    there = is_token(at)
    # Lanes without a token have some address that is not read: choosing one for them would hide from the compiler that
    # rows are aligned.
    place = at[0].to(tl.int64) * view.axis0 + at[1].to(tl.int64) * view.axis1 + at[2].to(tl.int64) * view.axis2
    place += batch * view.batch + head * view.head
    inside = there[:, None] & (dim < dims)[None, :]
    return tl.load(view.base + place[:, None] + dim.to(tl.int64)[None, :] * view.dim, mask=inside, other=0.0)


@triton.jit
def dense_rows(base, row, there, dims: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of a tensor that is dense along all axes."""
    dim = tl.arange(0, WIDTH)
    inside = there[:, None] & (dim < dims)[None, :]
    return tl.load(base + (row * dims)[:, None] + dim[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(base, row, there, tile, dims: tl.constexpr, WIDTH: tl.constexpr):
    """Into a tensor that is dense along all axes."""
    dim = tl.arange(0, WIDTH)
    inside = there[:, None] & (dim < dims)[None, :]
    tl.store(base + (row * dims)[:, None] + dim[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """``a @ b``, summed in float32; "wide" factors are made float32 first, because the interpreter takes the bits of
    bfloat16 for integers."""
    if PRECISION == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b, input_precision=PRECISION)
