"""Gradients of row statistics to queries and keys, from the normalisers: boxes of queries collect theirs from the keys
they meet, boxes of keys from the queries. One writer each."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import (
    coordinates,
    is_token,
    lanes,
    listed,
    number,
    origin,
    places,
    rows,
    store_rows,
)
from windeye.kernels.statistics.triton.columns import norms
from windeye.kernels.statistics.triton.linear import distances, pull_features, pull_tables
from windeye.kernels.statistics.triton.pairs import LN2, logits, not_hidden, product, value


@triton.jit
def finite(x):
    """Zero for what is not finite: NaN comes in with the weights of the pairs that see it, and nowhere else."""
    return tl.where(tl.abs(x) < float("inf"), x, 0.0).to(x.dtype)


@triton.jit
def of_rows(factors, row, there):
    """A factor of each query, [queries, 1]."""
    return tl.load(factors + row, mask=there, other=0.0)[:, None]


@triton.jit
def pulled(
    q_rows, k_rows, at, of_keys, row, batch, head, logits_, visits, pulls, features, tables,
    FEATURE_PARTS: tl.constexpr, FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr, RANK: tl.constexpr,
    CHECKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys]: what the loss pulls at dot products, ``A (constant + entropy log A + squares A + ...)`` by the
    derivative of the cap."""
    there = is_token(at)
    s, bend = logits(q_rows, k_rows, at, of_keys, batch, head, logits_, visits, RANK, CHECKS, True, WIDE, PRECISION)
    x = s - norms(pulls.lse, row, there)[:, None]
    weight = tl.exp2(x)
    pull = of_rows(pulls.constant, row, there) + tl.zeros_like(x)
    if pulls.entropy is not None:
        pull += of_rows(pulls.entropy, row, there) * (x * LN2)
    if pulls.squares is not None:
        pull += of_rows(pulls.squares, row, there) * weight
    if pulls.distance is not None:
        apart = tl.abs(distances(at, of_keys, visits.queries, visits.keys, logits_.offset))
        pull += of_rows(pulls.distance, row, there) * apart
    if FEATURE_PARTS > 0:
        pull = pull_features(
            pull, pulls.features, row, at, of_keys, batch, visits.keys, features,
            FEATURE_PARTS, FEATURE_WIDTH, SUM_PRECISION,
        )  # fmt: skip
    if TABLES > 0:
        pull = pull_tables(
            pull, pulls.tables, row, at, of_keys, visits.queries, visits.keys, logits_.offset, tables, TABLES
        )
    pull *= weight
    if logits_.cap is not None:
        pull *= bend
    # A pair without weight has no finite logarithm of it.
    return tl.where(weight != 0.0, pull, 0.0)


@triton.jit
def grad_query(
    query, key, logits_, visits, features, tables, pulls, scale, grad, heads, group,
    FEATURE_PARTS: tl.constexpr, FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr, head_dim: tl.constexpr,
    WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    """Of one box of queries."""
    box = tl.program_id(0) % visits.queries.boxes
    plane = tl.program_id(0) // visits.queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    start, of_box = origin(visits.queries, box, QUERIES), lanes(visits.queries, QUERIES)
    at = coordinates(visits.queries, start, of_box, False)
    q_rows = rows(query, batch, head, start, places(query, of_box, WIDTH), at, head_dim, WIDTH, False)
    lane = lanes(visits.keys, KEYS)
    k_places = places(key, lane, WIDTH)
    row = (batch * visits.queries.tokens + number(at, visits.queries)) * heads + head
    acc = tl.zeros([q_rows.shape[0], WIDTH], WIDE)
    entry = box + batch * visits.apart * visits.queries.boxes
    for meeting in range(tl.load(visits.of_queries.begin + entry), tl.load(visits.of_queries.begin + entry + 1)):
        start = listed(visits.keys, tl.load(visits.of_queries.other + meeting))
        of_keys = coordinates(visits.keys, start, lane, False)
        k_rows = rows(key, batch, head // group, start, k_places, of_keys, head_dim, WIDTH, False)
        of_keys = not_hidden(of_keys, visits.keys, batch, logits_)
        pull = pulled(
            q_rows, k_rows, at, of_keys, row, batch, head, logits_, visits, pulls, features, tables,
            FEATURE_PARTS, FEATURE_WIDTH, TABLES, RANK, CHECKS, WIDE, PRECISION, SUM_PRECISION,
        )  # fmt: skip
        acc += product(pull.to(k_rows.dtype), finite(k_rows), PRECISION)
    store_rows(grad, row, is_token(at), acc * value(scale, WIDE), head_dim, WIDTH)


@triton.jit
def grad_key(
    query, key, logits_, visits, features, tables, pulls, scale, grad, heads, group,
    FEATURE_PARTS: tl.constexpr, FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr, head_dim: tl.constexpr,
    WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    """Of one box of keys, over the query heads that share it."""
    box = tl.program_id(0) % visits.keys.boxes
    plane = tl.program_id(0) // visits.keys.boxes
    kv_heads = heads // group
    kv_head, batch = (plane % kv_heads).to(tl.int64), (plane // kv_heads).to(tl.int64)
    start, of_box = origin(visits.keys, box, KEYS), lanes(visits.keys, KEYS)
    every = coordinates(visits.keys, start, of_box, False)
    of_keys = not_hidden(every, visits.keys, batch, logits_)
    k_rows = rows(key, batch, kv_head, start, places(key, of_box, WIDTH), every, head_dim, WIDTH, False)
    lane = lanes(visits.queries, QUERIES)
    q_places = places(query, lane, WIDTH)
    acc = tl.zeros([k_rows.shape[0], WIDTH], WIDE)
    entry = box + batch * visits.apart * visits.keys.boxes
    begin, end = tl.load(visits.of_keys.begin + entry), tl.load(visits.of_keys.begin + entry + 1)
    for shared in range(group):
        head = kv_head * group + shared
        for meeting in range(begin, end):
            of_queries = listed(visits.queries, tl.load(visits.of_keys.other + meeting))
            at = coordinates(visits.queries, of_queries, lane, False)
            row = (batch * visits.queries.tokens + number(at, visits.queries)) * heads + head
            q_rows = rows(query, batch, head, of_queries, q_places, at, head_dim, WIDTH, False)
            pull = pulled(
                q_rows, k_rows, at, of_keys, row, batch, head, logits_, visits, pulls, features, tables,
                FEATURE_PARTS, FEATURE_WIDTH, TABLES, RANK, CHECKS, WIDE, PRECISION, SUM_PRECISION,
            )  # fmt: skip
            acc += product(tl.trans(pull.to(q_rows.dtype)), finite(q_rows), PRECISION)
    row = (batch * visits.keys.tokens + number(every, visits.keys)) * kv_heads + kv_head
    store_rows(grad, row, is_token(every), acc * value(scale, WIDE), head_dim, WIDTH)
