"""Column statistics: a box of keys sums the weights that it gets from the boxes of queries it meets, from their
normalisers. One writer each."""

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
)
from windeye.kernels.statistics.triton.linear import distances, reach
from windeye.kernels.statistics.triton.pairs import HIDDEN, LOG2E, logits, not_hidden, only


@triton.jit
def norms(lse, row, there):
    """Normalisers in units of log 2. A row that saw nothing, or that is none, gets one so large that its weights are
    zero."""
    norm = tl.load(lse + row, mask=there, other=float("-inf"))
    return tl.where(norm == float("-inf"), -HIDDEN, norm * LOG2E)


@triton.jit
def received(
    query, q_places, k_rows, of_keys, batch, head, heads, start, lane, logits_, visits, lse, counted, lags,
    head_dim: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What each key gets from one box of queries, at distances that count."""
    queries = visits.queries
    at = coordinates(queries, start, lane, False)
    row = batch * queries.tokens + number(at, queries)
    q_rows = rows(query, batch, head, start, q_places, at, head_dim, WIDTH, False)
    norm = norms(lse, row * heads + head, is_token(at))
    if counted is not None:
        at = only(at, tl.load(counted + row) != 0)
    s, _bend = logits(q_rows, k_rows, at, of_keys, batch, head, logits_, visits, RANK, CHECKS, True, WIDE, PRECISION)
    if lags is not None:
        distance = distances(at, of_keys, queries, visits.keys, logits_.offset)
        s = tl.where((distance >= lags.low) & (distance <= lags.high), s, HIDDEN)
    # A query that does not count may have any normaliser.
    return tl.sum(tl.where(s == HIDDEN, 0.0, tl.exp2(s - norm[:, None])), 0)


@triton.jit
def column_sums(
    query, key, logits_, visits, lse, counted, lags, sums, heads, group,
    head_dim: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr,
    CHECKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over the queries that count, of one box of keys, one head and batch entry."""
    box = tl.program_id(0) % visits.keys.boxes
    plane = tl.program_id(0) // visits.keys.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    queries, keys = visits.queries, visits.keys
    start, of_box = origin(keys, box, KEYS), lanes(keys, KEYS)
    every = coordinates(keys, start, of_box, False)
    of_keys = not_hidden(every, keys, batch, logits_)
    k_rows = rows(key, batch, head // group, start, places(key, of_box, WIDTH), every, head_dim, WIDTH, False)
    lane = lanes(queries, QUERIES)
    q_places = places(query, lane, WIDTH)
    acc = tl.zeros([k_rows.shape[0]], WIDE)
    entry = box + batch * visits.apart * keys.boxes
    for meeting in range(tl.load(visits.of_keys.begin + entry), tl.load(visits.of_keys.begin + entry + 1)):
        of_queries = listed(queries, tl.load(visits.of_keys.other + meeting))
        if lags is not None:
            near, far = reach(coordinates(queries, of_queries, lane, False), of_keys, queries, keys, logits_.offset)
            if (far >= lags.low) & (near <= lags.high):
                acc += received(
                    query, q_places, k_rows, of_keys, batch, head, heads, of_queries, lane, logits_, visits, lse,
                    counted, lags, head_dim, WIDTH, RANK, CHECKS, WIDE, PRECISION,
                )  # fmt: skip
        else:
            acc += received(
                query, q_places, k_rows, of_keys, batch, head, heads, of_queries, lane, logits_, visits, lse,
                counted, lags, head_dim, WIDTH, RANK, CHECKS, WIDE, PRECISION,
            )  # fmt: skip
    tl.store(sums + (batch * keys.tokens + number(every, keys)) * heads + head, acc, mask=is_token(every))
