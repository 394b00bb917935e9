"""Row statistics: a box of queries meets its boxes of keys with a running maximum, in one walk for all of them."""

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
from windeye.kernels.statistics.triton.linear import add_features, add_tables, distances
from windeye.kernels.statistics.triton.pairs import HIDDEN, LN2, LOG2E, logits, not_hidden
from windeye.kernels.statistics.triton.ranks import NONE, rank, unranked


@triton.jit
def take(
    state, other, lane, k_places, q_rows, at, key, batch, head, kv_head, logits_, visits, sums, features, tables,
    FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr, TABLE_WIDTH: tl.constexpr, TOP: tl.constexpr,
    head_dim: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    """The running state after one more box of keys; sums are relative to the running maximum."""
    top, total, entropy, squares, distance, most, of_features, of_tables, top_score, top_key = state
    queries, keys = visits.queries, visits.keys
    start = listed(keys, other)
    of_keys = coordinates(keys, start, lane, not MASKED)
    # All rows: which ones are wanted would have to be fetched before they are.
    k_rows = rows(key, batch, kv_head, start, k_places, of_keys, head_dim, WIDTH, not MASKED)
    of_keys = not_hidden(of_keys, keys, batch, logits_)
    s, _bend = logits(q_rows, k_rows, at, of_keys, batch, head, logits_, visits, RANK, CHECKS, MASKED, WIDE, PRECISION)
    highest = tl.max(s, 1)
    if sums.most is not None:
        most = tl.maximum(most, highest)
    if TOP > 0:
        top_score, top_key = rank(top_score, top_key, s, number(of_keys, keys))
    risen = tl.maximum(top, highest)
    reference = tl.where(risen == HIDDEN, 0.0, risen)
    x = s - reference[:, None]
    p = tl.exp2(x)
    whole = tl.sum(p, 1)
    fall = top - reference
    shrink = tl.exp2(fall)
    if sums.entropy is not None:
        entropy = shrink * (entropy + total * fall) + tl.sum(p * x, 1)
    total = total * shrink + whole
    if sums.squares is not None:
        squares = squares * shrink * shrink + tl.sum(p * p, 1)
    if sums.distance is not None:
        apart = tl.abs(distances(at, of_keys, queries, keys, logits_.offset))
        distance = distance * shrink + tl.sum(p * apart, 1)
    if FEATURE_WIDTH > 1:
        of_features = of_features * shrink[:, None]
        of_features = add_features(of_features, p, features, batch, of_keys, keys, FEATURE_WIDTH, SUM_PRECISION)
    if TABLES > 0:
        of_tables = add_tables(
            of_tables * shrink[:, None], p, whole, at, of_keys, queries, keys, logits_.offset, tables,
            TABLES, TABLE_WIDTH,
        )  # fmt: skip
    return risen, total, entropy, squares, distance, most, of_features, of_tables, top_score, top_key


@triton.jit
def row_sums(
    query, key, logits_, sink, visits, features, tables, sums, heads, group,
    FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr, TABLE_WIDTH: tl.constexpr, TOP: tl.constexpr,
    TOP_WIDTH: tl.constexpr, head_dim: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    RANK: tl.constexpr, CHECKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    """Normalisers and sums of one box of queries, one head and one batch entry."""
    box = tl.program_id(0) % visits.queries.boxes
    plane = tl.program_id(0) // visits.queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    kv_head = head // group
    start, of_box = origin(visits.queries, box, QUERIES), lanes(visits.queries, QUERIES)
    at = coordinates(visits.queries, start, of_box, False)
    q_rows = rows(query, batch, head, start, places(query, of_box, WIDTH), at, head_dim, WIDTH, False)
    lane = lanes(visits.keys, KEYS)
    k_places = places(key, lane, WIDTH)
    count: tl.constexpr = q_rows.shape[0]
    top = tl.full([count], HIDDEN, WIDE)
    if sink is not None:
        top = tl.maximum(top, tl.load(sink + head) * LOG2E)
    zero = tl.zeros([count], WIDE)
    top_score, top_key = unranked(count, TOP, TOP_WIDTH, WIDE)
    state = (
        top, zero, zero, zero, zero, tl.full([count], HIDDEN, WIDE), tl.zeros([count, FEATURE_WIDTH], WIDE),
        tl.zeros([count, TABLE_WIDTH], WIDE), top_score, top_key,
    )  # fmt: skip
    entry = box + batch * visits.apart * visits.queries.boxes
    begin, middle = tl.load(visits.of_queries.begin + entry), tl.load(visits.of_queries.middle + entry)
    end = tl.load(visits.of_queries.begin + entry + 1)
    for masked in tl.static_range(2):
        low, high = (middle, end) if masked else (begin, middle)
        for meeting in range(low, high):
            state = take(
                state, tl.load(visits.of_queries.other + meeting), lane, k_places, q_rows, at, key, batch, head,
                kv_head, logits_, visits, sums, features, tables, FEATURE_WIDTH, TABLES, TABLE_WIDTH, TOP, head_dim,
                WIDTH, RANK, CHECKS, masked == 1, WIDE, PRECISION, SUM_PRECISION,
            )  # fmt: skip
    row = (batch * visits.queries.tokens + number(at, visits.queries)) * heads + head
    write(state, sink, head, row, is_token(at), sums, features, FEATURE_WIDTH, TABLES, TABLE_WIDTH, TOP, TOP_WIDTH)


@triton.jit
def write(
    state, sink, head, row, there, sums, features, FEATURE_WIDTH: tl.constexpr, TABLES: tl.constexpr,
    TABLE_WIDTH: tl.constexpr, TOP: tl.constexpr, TOP_WIDTH: tl.constexpr,
):  # fmt: skip
    """Sums relative to a maximum become sums of weights."""
    top, total, entropy, squares, distance, most, of_features, of_tables, top_score, top_key = state
    whole = total
    if sink is not None:
        whole += tl.exp2(tl.load(sink + head) * LOG2E - top)
    nothing = whole == 0.0
    share = tl.where(nothing, 0.0, 1.0 / tl.where(nothing, 1.0, whole))
    above = tl.log2(tl.where(nothing, 1.0, whole))  # of the normaliser over the maximum
    tl.store(sums.lse + row, tl.where(nothing, float("-inf"), (top + above) * LN2), mask=there)
    if sums.mass is not None:
        tl.store(sums.mass + row, total * share, mask=there)
    if sums.entropy is not None:
        tl.store(sums.entropy + row, (above * total - entropy) * share * LN2, mask=there)
    if sums.squares is not None:
        tl.store(sums.squares + row, squares * share * share, mask=there)
    if sums.distance is not None:
        tl.store(sums.distance + row, distance * share, mask=there)
    if sums.most is not None:
        weight = tl.where(most == HIDDEN, 0.0, tl.exp2(most - top) * share)
        tl.store(sums.most + row, weight, mask=there)
    if FEATURE_WIDTH > 1:
        column = tl.arange(0, FEATURE_WIDTH)[None, :]
        inside = there[:, None] & (column < features.size)
        tl.store(sums.features + row[:, None] * features.size + column, of_features * share[:, None], mask=inside)
    if TABLES > 0:
        column = tl.arange(0, TABLE_WIDTH)[None, :]
        inside = there[:, None] & (column < TABLES)
        tl.store(sums.tables + row[:, None] * TABLES + column, of_tables * share[:, None], mask=inside)
    if TOP > 0:
        column = tl.arange(0, TOP_WIDTH)[None, :]
        inside = there[:, None] & (column < TOP)
        weight = tl.where(top_key < NONE, tl.exp2(top_score - top[:, None]) * share[:, None], 0.0)
        tl.store(sums.top_weight + row[:, None] * TOP + column, weight, mask=inside)
        tl.store(sums.top_key + row[:, None] * TOP + column, top_key, mask=inside)
