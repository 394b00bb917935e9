"""Gradients: boxes of queries collect theirs from the keys they meet, boxes of keys from the queries, and the offsets
of a bias table from the pairs of boxes that lie equally far apart."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import (
    coordinates,
    dense_rows,
    is_token,
    number,
    product,
    rows,
    store_rows,
)
from windeye.kernels.softmax.triton.pairs import kept, logits

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def of_box(
    query, grad_out, lse, delta, batch, head, heads, queries, at,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """What a box of queries brings: their rows, the gradients of their outputs, their normalisers in units of log 2,
    and what the gradients of their logits have subtracted. A row that saw nothing, or that is none, gets an infinite
    norm, so that its weights are zero."""
    there = is_token(at)
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    norm = tl.load(lse + row, mask=there, other=float("inf"))
    norm = tl.where(norm == float("-inf"), float("inf"), norm) * LOG2E
    less = tl.load(delta + row, mask=there, other=0.0)
    q_rows = rows(query, batch, head, at, head_dim, WIDTH)
    return q_rows, dense_rows(grad_out, row, there, value_dim, VALUE_WIDTH), norm, less


@triton.jit
def meet(
    q_rows, g_rows, norm, less, k_rows, v_rows, at, of_keys, batch, head, plane, hidden, bias, dropout,
    queries, keys, relation, scale_log2,
    RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys] of the map, what dropout left of it, and the gradients of its logits."""
    s = logits(
        q_rows, k_rows, at, of_keys, batch, head, keys, hidden, bias, relation, scale_log2,
        RANK, TERMS, MASKED, PRECISION,
    )  # fmt: skip
    p = tl.exp2(s - norm[:, None])
    pull = product(g_rows, tl.trans(v_rows), PRECISION)
    left = p
    if dropout is not None:
        alive = kept(at, of_keys, queries, keys, plane, dropout)
        left = tl.where(alive, p * dropout.enlarge, 0.0)
        pull = tl.where(alive, pull * dropout.enlarge, 0.0)
    return left, p * (pull - less[:, None])


@triton.jit
def to_query(
    acc, q_rows, g_rows, norm, less, at, other, key, value, batch, head, kv_head, plane, hidden, bias, dropout,
    queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    KEYS: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a box of queries has collected after one more box of keys."""
    of_keys = coordinates(keys, other, KEYS)
    k_rows = rows(key, batch, kv_head, of_keys, head_dim, WIDTH)
    v_rows = rows(value, batch, kv_head, of_keys, value_dim, VALUE_WIDTH)
    _, ds = meet(
        q_rows, g_rows, norm, less, k_rows, v_rows, at, of_keys, batch, head, plane, hidden, bias, dropout,
        queries, keys, relation, scale_log2, RANK, TERMS, MASKED, PRECISION,
    )  # fmt: skip
    return acc + product(ds.to(k_rows.dtype), k_rows, PRECISION)


@triton.jit
def grad_query(
    query, key, value, hidden, bias, dropout, lse, delta, grad_out, grad_q, scale, scale_log2, heads, group,
    queries, keys, lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``scale sum_k A (grad_out v^T - delta) k`` of one box of queries."""
    box = tl.program_id(0) % queries.boxes
    plane = tl.program_id(0) // queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    at = coordinates(queries, box, QUERIES)
    q_rows, g_rows, norm, less = of_box(
        query, grad_out, lse, delta, batch, head, heads, queries, at, head_dim, value_dim, WIDTH, VALUE_WIDTH
    )
    acc = tl.zeros([q_rows.shape[0], WIDTH], tl.float32)
    middle = tl.load(lists.middle + box)
    for meeting in range(tl.load(lists.begin + box), middle):
        acc = to_query(
            acc, q_rows, g_rows, norm, less, at, tl.load(lists.other + meeting), key, value, batch, head,
            head // group, plane, hidden, bias, dropout, queries, keys, relation, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, TERMS, False, PRECISION,
        )  # fmt: skip
    for meeting in range(middle, tl.load(lists.begin + box + 1)):
        acc = to_query(
            acc, q_rows, g_rows, norm, less, at, tl.load(lists.other + meeting), key, value, batch, head,
            head // group, plane, hidden, bias, dropout, queries, keys, relation, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, TERMS, True, PRECISION,
        )  # fmt: skip
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    store_rows(grad_q, row, is_token(at), acc * scale, head_dim, WIDTH)


@triton.jit
def to_key_value(
    dk, dv, k_rows, v_rows, of_keys, other, query, grad_out, lse, delta, batch, head, heads, hidden, bias, dropout,
    queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a box of keys has collected after one more box of queries."""
    at = coordinates(queries, other, QUERIES)
    q_rows, g_rows, norm, less = of_box(
        query, grad_out, lse, delta, batch, head, heads, queries, at, head_dim, value_dim, WIDTH, VALUE_WIDTH
    )
    left, ds = meet(
        q_rows, g_rows, norm, less, k_rows, v_rows, at, of_keys, batch, head, batch * heads + head, hidden, bias,
        dropout, queries, keys, relation, scale_log2, RANK, TERMS, MASKED, PRECISION,
    )  # fmt: skip
    dk += product(tl.trans(ds.to(q_rows.dtype)), q_rows, PRECISION)
    dv += product(tl.trans(left.to(g_rows.dtype)), g_rows, PRECISION)
    return dk, dv


@triton.jit
def grad_key_value(
    query, key, value, hidden, bias, dropout, lse, delta, grad_out, grad_k, grad_v, scale, scale_log2, heads, group,
    queries, keys, lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``A^T grad_out`` and ``scale sum_q A (grad_out v^T - delta) q`` of one box of keys, over the query heads that
    share it."""
    box = tl.program_id(0) % keys.boxes
    plane = tl.program_id(0) // keys.boxes
    kv_heads = heads // group
    kv_head, batch = (plane % kv_heads).to(tl.int64), (plane // kv_heads).to(tl.int64)
    of_keys = coordinates(keys, box, KEYS)
    k_rows = rows(key, batch, kv_head, of_keys, head_dim, WIDTH)
    v_rows = rows(value, batch, kv_head, of_keys, value_dim, VALUE_WIDTH)
    dk = tl.zeros([k_rows.shape[0], WIDTH], tl.float32)
    dv = tl.zeros([k_rows.shape[0], VALUE_WIDTH], tl.float32)
    begin, middle, end = tl.load(lists.begin + box), tl.load(lists.middle + box), tl.load(lists.begin + box + 1)
    for shared in range(group):
        head = kv_head * group + shared
        for meeting in range(begin, middle):
            dk, dv = to_key_value(
                dk, dv, k_rows, v_rows, of_keys, tl.load(lists.other + meeting), query, grad_out, lse, delta, batch,
                head, heads, hidden, bias, dropout, queries, keys, relation, scale_log2,
                head_dim, value_dim, WIDTH, VALUE_WIDTH, QUERIES, RANK, TERMS, False, PRECISION,
            )  # fmt: skip
        for meeting in range(middle, end):
            dk, dv = to_key_value(
                dk, dv, k_rows, v_rows, of_keys, tl.load(lists.other + meeting), query, grad_out, lse, delta, batch,
                head, heads, hidden, bias, dropout, queries, keys, relation, scale_log2,
                head_dim, value_dim, WIDTH, VALUE_WIDTH, QUERIES, RANK, TERMS, True, PRECISION,
            )  # fmt: skip
    row = (batch * keys.tokens + number(of_keys, keys)) * kv_heads + kv_head
    store_rows(grad_k, row, is_token(of_keys), dk * scale, head_dim, WIDTH)
    store_rows(grad_v, row, is_token(of_keys), dv, value_dim, VALUE_WIDTH)
