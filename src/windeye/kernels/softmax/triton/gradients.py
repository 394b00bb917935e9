"""Gradients: boxes of queries collect theirs from the keys they meet, boxes of keys from the queries. Each sums up what
stands down its tiles of pairs, so that no tile is turned between two products."""

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
from windeye.kernels.softmax.triton.pairs import (
    UNSEEN,
    biases,
    is_shown,
    kept,
    logits,
    place,
    powers,
    seen,
    shown_logits,
)


@triton.jit
def norms(pulls, batch, head, heads, queries, at, WHOLE: tl.constexpr):
    """Normalisers of queries, infinite for those that are no tokens, so that their weights are zero, and what the
    gradients of their logits have subtracted."""
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    if WHOLE:
        return tl.load(pulls.norm + row), tl.load(pulls.less + row)
    else:
        there = is_token(at)
        return tl.load(pulls.norm + row, mask=there, other=float("inf")), tl.load(
            pulls.less + row, mask=there, other=0.0
        )


@triton.jit
def left(p, q, k, plane, dropout, queries, keys):
    """Of pairs: what dropout left of them, enlarged."""
    if dropout is not None:
        p = tl.where(kept(q, k, queries, keys, plane, dropout), p * dropout.enlarge, 0.0)
    return p


@triton.jit
def to_query(
    acc, q_rows, g_rows, norm, less, at, q_place, other, lane, k_place, k_way, v_way, key, value, batch, head,
    kv_head, plane, hidden, bias, dropout, queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr, WHOLE: tl.constexpr, TILES: tl.constexpr,
    RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a box of queries has collected after one more box of keys."""
    start = listed(keys, other)
    there = coordinates(keys, start, lane, WHOLE)
    k_rows = box_rows(key, batch, kv_head, start, k_way, there, head_dim, KEYS, WIDTH, WHOLE, TILES)
    v_rows = box_rows(value, batch, kv_head, start, v_way, there, value_dim, KEYS, VALUE_WIDTH, WHOLE, TILES)
    q, k = down(at), across(coordinates(keys, start, lane, True))
    s = shown_logits(
        q_rows, k_rows, q, k, there, batch, head, start, q_place, k_place, hidden, bias, keys, relation, scale_log2,
        RANK, CHECKS, WHOLE, RAW, PRECISION,
    )  # fmt: skip
    pull = left(product(g_rows, tl.trans(v_rows), PRECISION), q, k, plane, dropout, queries, keys)
    ds = powers(s, norm[:, None], scale_log2, RAW) * (pull - less[:, None])
    return acc + product(ds.to(k_rows.dtype), k_rows, PRECISION)


@triton.jit
def grad_query(
    query, key, value, hidden, bias, dropout, extra, pulls, grad_q, scale, scale_log2, heads, group,
    queries, keys, lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    TILES: tl.constexpr, RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``scale sum_k A (grad_out v^T - delta) k`` of one box of queries."""
    box = tl.program_id(0) % queries.boxes
    plane = tl.program_id(0) // queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    kv_head = head // group
    start, of_queries = origin(queries, box, QUERIES), lanes(queries, QUERIES)
    at = coordinates(queries, start, of_queries, False)
    q_rows = rows(query, batch, head, start, places(query, of_queries, WIDTH), at, head_dim, WIDTH, False)
    g_places = places(pulls.grad_out, of_queries, VALUE_WIDTH)
    g_rows = rows(pulls.grad_out, batch, head, start, g_places, at, value_dim, VALUE_WIDTH, False)
    norm, less = norms(pulls, batch, head, heads, queries, at, False)
    lane = lanes(keys, KEYS)
    k_way = way(key, batch, heads // group, keys, lane, head_dim, KEYS, WIDTH, TILES)
    v_way = way(value, batch, heads // group, keys, lane, value_dim, KEYS, VALUE_WIDTH, TILES)
    q_place, k_place = None, None
    if bias is not None:
        q_place, k_place = place(start, bias) + place(of_queries, bias), place(lane, bias)
    acc = tl.zeros([q_rows.shape[0], WIDTH], tl.float32)
    begin, middle, end = tl.load(lists.begin + box), tl.load(lists.middle + box), tl.load(lists.begin + box + 1)
    for masked in tl.static_range(2):
        low, high = (middle, end) if masked else (begin, middle)
        if low < high:  # see `attention`
            for meeting in range(low, high):
                acc = to_query(
                    acc, q_rows, g_rows, norm, less, at, q_place, tl.load(lists.other + meeting), lane, k_place,
                    k_way, v_way, key, value, batch, head, kv_head, plane, hidden, bias, dropout, queries, keys,
                    relation, scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, masked == 0,
                    TILES, RAW, PRECISION,
                )  # fmt: skip
    if extra is not None:
        size: tl.constexpr = KEYS[0] * KEYS[1] * KEYS[2]
        lane = lanes(extra.side, (1, 1, size))
        k_way, v_way = places(extra.key, lane, WIDTH), places(extra.value, lane, VALUE_WIDTH)
        full = extra.side.length2 // size
        if full > 0:
            for box in range(full):
                acc = to_query(
                    acc, q_rows, g_rows, norm, less, at, None, box * size, lane, None, k_way, v_way, extra.key,
                    extra.value, batch, head, kv_head, plane, None, None, extra.dropout, queries, extra.side, None,
                    scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, True, False, RAW,
                    PRECISION,
                )  # fmt: skip
        if full < extra.side.boxes:
            acc = to_query(
                acc, q_rows, g_rows, norm, less, at, None, full * size, lane, None, k_way, v_way, extra.key,
                extra.value, batch, head, kv_head, plane, None, None, extra.dropout, queries, extra.side, None,
                scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, CHECKS, False, False, RAW, PRECISION,
            )  # fmt: skip
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    store_rows(grad_q, row, is_token(at), acc * scale, head_dim, WIDTH)


@triton.jit
def to_key_value(
    dk, dv, k_rows, v_rows, at, k_place, shown, other, lane, q_place, q_way, g_way, query, pulls, batch, head,
    heads, bias, dropout, queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr, WHOLE: tl.constexpr, TILES: tl.constexpr,
    RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a box of keys has collected after one more box of queries."""
    start = listed(queries, other)
    there = coordinates(queries, start, lane, WHOLE)
    q_rows = box_rows(query, batch, head, start, q_way, there, head_dim, QUERIES, WIDTH, WHOLE, TILES)
    g_rows = box_rows(
        pulls.grad_out, batch, head, start, g_way, there, value_dim, QUERIES, VALUE_WIDTH, WHOLE, TILES
    )  # fmt: skip
    norm, less = norms(pulls, batch, head, heads, queries, there, WHOLE)
    q, k = across(coordinates(queries, start, lane, True)), down(at)
    s = logits(k_rows, q_rows, scale_log2, RAW, PRECISION)
    if bias is not None:
        s += biases(bias, head, (place(start, bias) + q_place)[None, :], k_place[:, None])
    if shown is not None:
        s = tl.where(shown[:, None], s, UNSEEN)
    if not WHOLE:
        s = tl.where(seen(k, q, there, relation, RANK, CHECKS), s, UNSEEN)
    plane = batch * heads + head
    p = powers(s, norm[None, :], scale_log2, RAW)
    # In this order, the second product begins where the tile of the first is small already.
    dv += product(left(p, q, k, plane, dropout, queries, keys).to(g_rows.dtype), g_rows, PRECISION)
    pull = left(product(v_rows, tl.trans(g_rows), PRECISION), q, k, plane, dropout, queries, keys)
    ds = p * (pull - less[None, :])
    dk += product(ds.to(q_rows.dtype), q_rows, PRECISION)
    return dk, dv


@triton.jit
def grad_key_value(
    query, key, value, hidden, bias, dropout, pulls, grad_k, grad_v, scale, scale_log2, heads, group, queries, keys,
    lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr,
    TILES: tl.constexpr, RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``A^T grad_out`` and ``scale sum_q A (grad_out v^T - delta) q`` of one box of keys, over the query heads that
    share it."""
    box = tl.program_id(0) % keys.boxes
    plane = tl.program_id(0) // keys.boxes
    kv_heads = heads // group
    kv_head, batch = (plane % kv_heads).to(tl.int64), (plane // kv_heads).to(tl.int64)
    start, of_box = origin(keys, box, KEYS), lanes(keys, KEYS)
    at = coordinates(keys, start, of_box, False)
    k_rows = rows(key, batch, kv_head, start, places(key, of_box, WIDTH), at, head_dim, WIDTH, False)
    v_places = places(value, of_box, VALUE_WIDTH)
    v_rows = rows(value, batch, kv_head, start, v_places, at, value_dim, VALUE_WIDTH, False)
    lane = lanes(queries, QUERIES)
    q_way = way(query, batch, heads, queries, lane, head_dim, QUERIES, WIDTH, TILES)
    g_way = way(pulls.grad_out, batch, heads, queries, lane, value_dim, QUERIES, VALUE_WIDTH, TILES)
    q_place, k_place, shown = None, None, None
    if bias is not None:
        q_place, k_place = place(lane, bias), place(start, bias) + place(of_box, bias)
    if hidden is not None:
        shown = is_shown(hidden, batch, keys, at)
    dk = tl.zeros([k_rows.shape[0], WIDTH], tl.float32)
    dv = tl.zeros([k_rows.shape[0], VALUE_WIDTH], tl.float32)
    begin, middle, end = tl.load(lists.begin + box), tl.load(lists.middle + box), tl.load(lists.begin + box + 1)
    # One loop over heads and boxes: see `attention` for what a loop does that may be empty.
    for masked in tl.static_range(2):
        low, high = (middle, end) if masked else (begin, middle)
        if low < high:
            for step in range((high - low) * group):
                dk, dv = to_key_value(
                    dk, dv, k_rows, v_rows, at, k_place, shown, tl.load(lists.other + low + step // group), lane,
                    q_place, q_way, g_way, query, pulls, batch, kv_head * group + step % group, heads, bias, dropout,
                    queries, keys, relation, scale_log2, head_dim, value_dim, WIDTH, VALUE_WIDTH, QUERIES, RANK,
                    CHECKS, masked == 0, TILES, RAW, PRECISION,
                )  # fmt: skip
    row = (batch * keys.tokens + number(at, keys)) * kv_heads + kv_head
    store_rows(grad_k, row, is_token(at), dk * scale, head_dim, WIDTH)
    store_rows(grad_v, row, is_token(at), dv, value_dim, VALUE_WIDTH)
