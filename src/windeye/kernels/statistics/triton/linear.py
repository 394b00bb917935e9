"""Linear statistics: weights times functions of the key, or of the distance. Most boxes lie where such a function does
not change; there the sum of a box's weights is enough."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import is_token, number
from windeye.kernels.statistics.triton.pairs import product

FAR = tl.constexpr(1 << 30)


@triton.jit
def features_of(features, first, batch, k, keys, WIDTH: tl.constexpr):
    """[keys, WIDTH] of them from ``first`` on, zero beyond what there is."""
    column = first + tl.arange(0, WIDTH)
    inside = is_token(k)[:, None] & (column < features.size)[None, :]
    place = batch * features.batch + number(k, keys).to(tl.int64)[:, None] * features.size + column[None, :]
    return tl.load(features.base + place, mask=inside, other=0.0)


@triton.jit
def add_features(sums, weights, features, batch, k, keys, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """Each query's sums after one more box of keys."""
    values = features_of(features, 0, batch, k, keys, WIDTH)
    if tl.max(tl.max(tl.abs(values), 1), 0) > 0:
        sums += product(weights, values, PRECISION)
    return sums


@triton.jit
def pull_features(
    pull, factors, row, q, k, batch, keys, features, PARTS: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr
):
    """What factors of each row make of the features, some at a time, added to the pull at the pairs."""
    for part in tl.static_range(PARTS):
        values = features_of(features, part * WIDTH, batch, k, keys, WIDTH)
        if tl.max(tl.max(tl.abs(values), 1), 0) > 0:
            column = part * WIDTH + tl.arange(0, WIDTH)[None, :]
            inside = is_token(q)[:, None] & (column < features.size)
            own = tl.load(factors + row[:, None] * features.size + column, mask=inside, other=0.0)
            pull += product(own, tl.trans(values), PRECISION)
    return pull


@triton.jit
def distances(q, k, queries, keys, offset):
    """[queries, keys]: how many positions a query stands behind a key."""
    return (number(q, queries) + offset)[:, None] - number(k, keys)[None, :]


@triton.jit
def reach(q, k, queries, keys, offset):
    """The nearest and the farthest distance between two boxes."""
    query, key, there, real = number(q, queries), number(k, keys), is_token(q), is_token(k)
    near = tl.min(tl.where(there, query, FAR), 0) - tl.max(tl.where(real, key, -FAR), 0)
    far = tl.max(tl.where(there, query, -FAR), 0) - tl.min(tl.where(real, key, FAR), 0)
    return near + offset, far + offset


@triton.jit
def add_tables(sums, weights, whole, q, k, queries, keys, offset, tables, TABLES: tl.constexpr, WIDTH: tl.constexpr):
    """Each query's sums after one more box of keys, of which ``whole`` are the weights."""
    near, far = reach(q, k, queries, keys, offset)
    place = distances(q, k, queries, keys, offset) - tables.first
    place = tl.minimum(tl.maximum(place, 0), tables.distances - 1)
    column = tl.arange(0, WIDTH)[None, :]
    for table in tl.static_range(TABLES):
        of = tables.base + table * tables.distances
        if far <= tl.load(tables.ends + 2 * table):
            more = tl.load(of) * whole
        elif near >= tl.load(tables.ends + 2 * table + 1):
            more = tl.load(of + tables.distances - 1) * whole
        else:
            more = tl.sum(tl.load(of + place) * weights, 1)
        sums = tl.where(column == table, sums + more[:, None], sums)
    return sums


@triton.jit
def pull_tables(pull, factors, row, q, k, queries, keys, offset, tables, TABLES: tl.constexpr):
    """What factors of each row make of the distances, added to the pull at the pairs."""
    near, far = reach(q, k, queries, keys, offset)
    place = distances(q, k, queries, keys, offset) - tables.first
    place = tl.minimum(tl.maximum(place, 0), tables.distances - 1)
    for table in tl.static_range(TABLES):
        of = tables.base + table * tables.distances
        factor = tl.load(factors + row * TABLES + table, mask=is_token(q), other=0.0)[:, None]
        if far <= tl.load(tables.ends + 2 * table):
            pull += tl.load(of) * factor
        elif near >= tl.load(tables.ends + 2 * table + 1):
            pull += tl.load(of + tables.distances - 1) * factor
        else:
            pull += tl.load(of + place) * factor
    return pull
