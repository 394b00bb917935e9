"""What all kernels do to a tile: load it, multiply, decay it, turn coordinates into features and back.

A tile holds the ``CHUNK`` tokens of a chunk, of which the first ``length`` are real, by coordinates, features or value
columns; what lies outside is zero.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def chunk_at(table, number):
    """Batch entry, first token and tokens of a chunk."""
    entry = tl.load(table + 3 * number).to(tl.int64)
    first = tl.load(table + 3 * number + 1).to(tl.int64)
    return entry, first, tl.load(table + 3 * number + 2)


@triton.jit
def load_tile(base, stride_token, stride_column, column, columns, length, CHUNK: tl.constexpr):
    """[CHUNK, columns of the tile] in float32, of a tensor whose address is that of the chunk's first token."""
    row = tl.arange(0, CHUNK)
    inside = (row < length)[:, None] & ((column >= 0) & (column < columns))[None, :]
    place = row.to(tl.int64)[:, None] * stride_token + column.to(tl.int64)[None, :] * stride_column
    return tl.load(base + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_tile(base, stride_token, tile, column, columns, length, CHUNK: tl.constexpr):
    """Into a tensor that is dense along its last axis."""
    row = tl.arange(0, CHUNK)
    inside = (row < length)[:, None] & (column < columns)[None, :]
    place = row.to(tl.int64)[:, None] * stride_token + column[None, :]
    tl.store(base + place, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_rows(base, stride_token, length, CHUNK: tl.constexpr):
    """One number a token."""
    row = tl.arange(0, CHUNK)
    return tl.load(base + row.to(tl.int64) * stride_token, mask=row < length, other=0.0)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """``a @ b`` of float32 tiles."""
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def decay_of_rows(decay, entry, first, head, length, tokens, HEADS, DECAY: tl.constexpr, CHUNK: tl.constexpr):
    """``since``: what a token keeps of the state before the chunk; ``until``: what of it is kept at the chunk's end;
    ``whole``: what the end keeps of the state. Rows outside are zero.

    Each exponent is the sum of its own terms: a difference of running sums is NaN after ``-inf`` and loses its digits
    after a strong decay.
    """
    row = tl.arange(0, CHUNK)
    if DECAY == "token":
        own = load_rows(decay + (entry * tokens + first) * HEADS + head, HEADS, length, CHUNK)
        since = tl.exp(tl.sum(tl.where(row[None, :] <= row[:, None], own[None, :], 0.0), 1))
        until = tl.exp(tl.sum(tl.where(row[None, :] > row[:, None], own[None, :], 0.0), 1))
        whole = tl.exp(tl.sum(own, 0))
    elif DECAY == "head":
        rate = tl.load(decay + head)
        rest = length - 1 - row
        since = tl.exp(rate * (row + 1))
        until = tl.exp(tl.where(rest > 0, rate * tl.maximum(rest, 1), 0.0))
        whole = tl.exp(rate * length)
    else:
        since = tl.full([CHUNK], 1.0, tl.float32)
        until = since
        whole = 1.0
    return tl.where(row < length, since, 0.0), tl.where(row < length, until, 0.0), whole


@triton.jit
def decay_of_pairs(decay, entry, first, head, length, tokens, HEADS, DECAY: tl.constexpr, CHUNK: tl.constexpr):
    """[i, j]: what token i keeps of token j; zero for later tokens and outside."""
    row = tl.arange(0, CHUNK)
    if DECAY == "token":
        own = load_rows(decay + (entry * tokens + first) * HEADS + head, HEADS, length, CHUNK)
        kept = tl.exp(tl.cumsum(tl.where(row[:, None] > row[None, :], own[:, None], 0.0), 0))
    elif DECAY == "head":
        distance = row[:, None] - row[None, :]
        kept = tl.exp(tl.where(distance > 0, tl.load(decay + head) * tl.maximum(distance, 1), 0.0))
    else:
        kept = tl.full([CHUNK, CHUNK], 1.0, tl.float32)
    return tl.where((row[:, None] >= row[None, :]) & (row < length)[:, None], kept, 0.0)


@triton.jit
def weight(u, TAYLOR: tl.constexpr):
    """``<phi(q), phi(k)>`` as a function of ``u = <q, k>``."""
    if TAYLOR:
        u = 1.0 + u + 0.5 * u * u
    return u


@triton.jit
def faded(factor, x):
    """``factor * x`` where a factor of zero forgets NaN and infinity as well."""
    return tl.where(factor == 0.0, 0.0, factor * x)


@triton.jit
def load_factors(base, stride_token, stride_dim, left, right, feature, features, head_dim, length, CHUNK: tl.constexpr):
    """The two coordinates whose product is a Taylor feature, by feature; a factor that is not there is 1."""
    known = feature < features
    a = tl.load(left + feature, mask=known, other=0)
    b = tl.load(right + feature, mask=known, other=0)
    x = load_tile(base, stride_token, stride_dim, a, head_dim, length, CHUNK)
    y = load_tile(base, stride_token, stride_dim, b, head_dim, length, CHUNK)
    return tl.where((a < 0)[None, :], 1.0, x), tl.where((b < 0)[None, :], 1.0, y)


@triton.jit
def load_features(
    base, stride_token, stride_dim, left, right, coefficient, feature, features, head_dim, length,
    TAYLOR: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """[CHUNK, features of the tile]. Rows outside are not zero for Taylor features: their decay is."""
    if TAYLOR:
        x, y = load_factors(base, stride_token, stride_dim, left, right, feature, features, head_dim, length, CHUNK)
        tile = x * y * tl.load(coefficient + feature, mask=feature < features, other=0.0)[None, :]
    else:
        tile = load_tile(base, stride_token, stride_dim, feature, features, length, CHUNK)
    return tile


@triton.jit
def pulled_back(
    grad, base, stride_token, stride_dim, left, right, coefficient, feature, features, dim, head_dim, length,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradient of the coordinates ``dim`` from that of Taylor features: each feature gives to its two factors."""
    known = feature < features
    a = tl.load(left + feature, mask=known, other=-1)
    b = tl.load(right + feature, mask=known, other=-1)
    x, y = load_factors(base, stride_token, stride_dim, left, right, feature, features, head_dim, length, CHUNK)
    grad = grad * tl.load(coefficient + feature, mask=known, other=0.0)[None, :]
    to_a = (a[:, None] == dim[None, :]).to(tl.float32)
    to_b = (b[:, None] == dim[None, :]).to(tl.float32)
    return product(grad * y, to_a, "tf32x3") + product(grad * x, to_b, "tf32x3")
