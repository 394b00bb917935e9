"""Outputs and normalisers: a box of queries meets its boxes of keys with a running maximum."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import (
    across,
    box_rows,
    coordinates,
    down,
    is_token,
    lanes,
    listed,
    number,
    origin,
    places,
    product,
    rows,
    store_rows,
    way,
)
from windeye.kernels.softmax.triton.pairs import kept, place, powers, shown_logits


@triton.jit
def meet(
    acc, top, total, q_rows, at, q_place, other, lane, k_place, k_way, v_way, key, value, batch, head, kv_head,
    hidden, bias, dropout, plane, queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr, WHOLE: tl.constexpr, TILES: tl.constexpr,
    RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The running state after one more box of keys."""
    start = listed(keys, other)
    there = coordinates(keys, start, lane, WHOLE)
    k_rows = box_rows(key, batch, kv_head, start, k_way, there, head_dim, KEYS, WIDTH, WHOLE, TILES)
    q, k = down(at), across(coordinates(keys, start, lane, True))
    s = shown_logits(
        q_rows, k_rows, q, k, there, batch, head, start, q_place, k_place, hidden, bias, keys, relation, scale_log2,
        RANK, CHECKS, WHOLE, RAW, PRECISION,
    )  # fmt: skip
    highest = tl.max(s, 1)
    risen = tl.maximum(top, highest * scale_log2 if RAW else highest)
    reference = tl.where(risen == float("-inf"), 0.0, risen)
    p = powers(s, reference[:, None], scale_log2, RAW)
    shrink = tl.exp2(top - reference)
    total = total * shrink + tl.sum(p, 1)
    if dropout is not None:
        p = tl.where(kept(q, k, queries, keys, plane, dropout), p, 0.0)
    v_rows = box_rows(value, batch, kv_head, start, v_way, there, value_dim, KEYS, VALUE_WIDTH, WHOLE, TILES)
    acc = acc * shrink[:, None] + product(p.to(v_rows.dtype), v_rows, PRECISION)
    return acc, risen, total


@triton.jit
def attention(
    query, key, value, hidden, bias, dropout, extra, out, lse, scale_log2, heads, group, queries, keys, lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    TILES: tl.constexpr, RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``softmax(scale q k^T + bias, seen) v`` and its log-sum-exp for one box of queries, one head and one batch
    entry."""
    box = tl.program_id(0) % queries.boxes
    plane = tl.program_id(0) // queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    kv_head = head // group
    start, of_queries = origin(queries, box, QUERIES), lanes(queries, QUERIES)
    at = coordinates(queries, start, of_queries, False)
    q_rows = rows(query, batch, head, start, places(query, of_queries, WIDTH), at, head_dim, WIDTH, False)
    lane = lanes(keys, KEYS)
    kv_heads = heads // group
    k_way = way(key, batch, kv_heads, keys, lane, head_dim, KEYS, WIDTH, TILES)
    v_way = way(value, batch, kv_heads, keys, lane, value_dim, KEYS, VALUE_WIDTH, TILES)
    q_place, k_place = None, None
    if bias is not None:
        q_place, k_place = place(start, bias) + place(of_queries, bias), place(lane, bias)
    acc = tl.zeros([q_rows.shape[0], VALUE_WIDTH], tl.float32)
    top = tl.full([q_rows.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([q_rows.shape[0]], tl.float32)
    begin, middle, end = tl.load(lists.begin + box), tl.load(lists.middle + box), tl.load(lists.begin + box + 1)
    # An empty loop would join its result with one that tensor cores are still summing up: the compiler would then wait
    # for every single product.
    for masked in tl.static_range(2):
        low, high = (middle, end) if masked else (begin, middle)
        if low < high:
            for meeting in range(low, high):
                acc, top, total = meet(
                    acc, top, total, q_rows, at, q_place, tl.load(lists.other + meeting), lane, k_place, k_way,
                    v_way, key, value, batch, head, kv_head, hidden, bias, dropout, plane, queries, keys, relation,
                    scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, masked == 0, TILES, RAW,
                    PRECISION,
                )  # fmt: skip
    if extra is not None:
        size: tl.constexpr = KEYS[0] * KEYS[1] * KEYS[2]
        lane = lanes(extra.side, (1, 1, size))
        k_way, v_way = places(extra.key, lane, WIDTH), places(extra.value, lane, VALUE_WIDTH)
        full = extra.side.length2 // size
        if full > 0:
            for box in range(full):
                acc, top, total = meet(
                    acc, top, total, q_rows, at, None, box * size, lane, None, k_way, v_way, extra.key,
                    extra.value, batch, head, kv_head, None, None, extra.dropout, plane, queries, extra.side, None,
                    scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, True, False, RAW,
                    PRECISION,
                )  # fmt: skip
        if full < extra.side.boxes:
            acc, top, total = meet(
                acc, top, total, q_rows, at, None, full * size, lane, None, k_way, v_way, extra.key,
                extra.value, batch, head, kv_head, None, None, extra.dropout, plane, queries, extra.side, None,
                scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, False, False, RAW, PRECISION,
            )  # fmt: skip
    nothing = total == 0.0
    acc = acc / tl.where(nothing, 1.0, total)[:, None]
    if dropout is not None:
        acc *= dropout.enlarge
    there = is_token(at)
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    store_rows(out, row, there, acc, value_dim, VALUE_WIDTH)
    norm = tl.where(nothing, float("-inf"), (top + tl.log2(tl.where(nothing, 1.0, total))) * 0.6931471805599453)
    tl.store(lse + row, norm, mask=there)
