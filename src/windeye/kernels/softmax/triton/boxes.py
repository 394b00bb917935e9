"""What all kernels do with a box of tokens: where its tokens are and fetching their rows.

A box is its origin, three numbers, and its lanes, which are those of every box: what hangs on lanes alone is made once,
outside of the walk over boxes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def along(box, row, step, SIZE: tl.constexpr):
    """The first coordinate of a box of one axis."""
    return box // row + box % row * SIZE * step


@triton.jit
def origin(side, box, SIZE: tl.constexpr):
    """The coordinates of the first token of a box."""
    box0, box1, box2 = box // (side.boxes2 * side.boxes1), box // side.boxes2 % side.boxes1, box % side.boxes2
    first = along(box0, side.row0, side.step0, SIZE[0])
    second = along(box1, side.row1, side.step1, SIZE[1])
    return first, second, along(box2, side.row2, side.step2, SIZE[2])


@triton.jit
def listed(side, packed):
    """The origin of a box that a list holds, where its coordinates stand side by side in one number."""
    first, second, last = packed >> side.shift0, (packed >> side.shift1) & side.mask1, packed & side.mask2
    return tl.cast(first, tl.int32), tl.cast(second, tl.int32), tl.cast(last, tl.int32)


@triton.jit
def lanes(side, SIZE: tl.constexpr):
    """How far each lane of a box lies from its origin along each axis."""
    lane = tl.arange(0, SIZE[0] * SIZE[1] * SIZE[2])
    first, second = lane // (SIZE[2] * SIZE[1]), lane // SIZE[2] % SIZE[1]
    return first * side.step0, second * side.step1, lane % SIZE[2] * side.step2


@triton.jit
def coordinates(side, start, lane, WHOLE: tl.constexpr):
    """The three coordinates of each token of a box; unless it is ``WHOLE``, -1 beyond the end of an axis."""
    first, second, last = start[0] + lane[0], start[1] + lane[1], start[2] + lane[2]
    if not WHOLE:
        first = tl.where(first < side.length0, first, -1)
        second = tl.where(second < side.length1, second, -1)
        last = tl.where(last < side.length2, last, -1)
    return first, second, last


@triton.jit
def down(at):
    """Coordinates of the tokens that are the rows of a tile of pairs."""
    return at[0][:, None], at[1][:, None], at[2][:, None]


@triton.jit
def across(at):
    """Coordinates of the tokens that are the columns of a tile of pairs."""
    return at[0][None, :], at[1][None, :], at[2][None, :]


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
def places(view, lane, WIDTH: tl.constexpr):
    """[lanes, WIDTH]: how far numbers of a box lie from the first one, in elements."""
    row = lane[0].to(tl.int64) * view.axis0 + lane[1].to(tl.int64) * view.axis1 + lane[2].to(tl.int64) * view.axis2
    return row[:, None] + tl.arange(0, WIDTH).to(tl.int64)[None, :] * view.dim


@triton.jit
def way(
    view, batch, heads, side, lane, dims: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr
):
    """How the rows of boxes are found: from their first numbers on, or by a descriptor of the tensor, from which the
    device fetches a box with one instruction."""
    if TILES:
        return tl.make_tensor_descriptor(
            view.base + batch * view.batch,
            shape=[side.length0, side.length1, side.length2, heads, dims],
            strides=[wide(view.axis0), wide(view.axis1), wide(view.axis2), wide(view.head), 1],
            block_shape=[SIZE[0], SIZE[1], SIZE[2], 1, WIDTH],
        )
    else:
        return places(view, lane, WIDTH)


@triton.jit
def wide(number_):
    """A number in 64 bits, whether the compiler knows it or not."""
    return tl.cast(number_, tl.int64)


@triton.jit
def box_rows(
    view, batch, head, start, found, at, dims: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    WHOLE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """[lanes, WIDTH] of a tensor, zero where there is no token or coordinate; ``found`` is its `way`."""
    if TILES:
        tile = found.load([start[0], start[1], start[2], tl.cast(head, tl.int32), 0])
        return tile.reshape([SIZE[0] * SIZE[1] * SIZE[2], WIDTH])
    else:
        return rows(view, batch, head, start, found, at, dims, WIDTH, WHOLE)


@triton.jit
def rows(view, batch, head, start, place, at, dims: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """[lanes, WIDTH] of a tensor, zero where there is no token or coordinate; ``at`` are the coordinates, and ``place``
    is what `places` makes of lanes."""
    base = view.base + batch * view.batch + head * view.head
    base += wide(start[0]) * view.axis0
    base += wide(start[1]) * view.axis1
    base += wide(start[2]) * view.axis2
    known = (tl.arange(0, WIDTH) < dims)[None, :]
    # Lanes without a token have some address that is not read: choosing one for them would hide from the compiler that
    # rows are aligned.
    if not WHOLE:
        found = tl.load(base + place, mask=is_token(at)[:, None] & known, other=0.0)
    elif dims != WIDTH:
        found = tl.load(base + place, mask=known, other=0.0)
    else:
        found = tl.load(base + place)
    return found


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
