"""Outputs and normalisers: a box of queries meets its boxes of keys with a running maximum."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import coordinates, is_token, number, product, rows, store_rows
from windeye.kernels.softmax.triton.pairs import kept, logits


@triton.jit
def meet(
    acc, top, total, q_rows, at, other, key, value, batch, head, kv_head, hidden, bias, dropout, plane,
    queries, keys, relation, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    KEYS: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The running state after one more box of keys."""
    of_keys = coordinates(keys, other, KEYS)
    k_rows = rows(key, batch, kv_head, of_keys, head_dim, WIDTH)
    s = logits(
        q_rows, k_rows, at, of_keys, batch, head, keys, hidden, bias, relation, scale_log2,
        RANK, TERMS, MASKED, PRECISION,
    )  # fmt: skip
    risen = tl.maximum(top, tl.max(s, 1))
    reference = tl.where(risen == float("-inf"), 0.0, risen)
    p = tl.exp2(s - reference[:, None])
    shrink = tl.exp2(top - reference)
    total = total * shrink + tl.sum(p, 1)
    if dropout is not None:
        p = tl.where(kept(at, of_keys, queries, keys, plane, dropout), p, 0.0)
    v_rows = rows(value, batch, kv_head, of_keys, value_dim, VALUE_WIDTH)
    acc = acc * shrink[:, None] + product(p.to(v_rows.dtype), v_rows, PRECISION)
    return acc, risen, total


@triton.jit
def attention(
    query, key, value, hidden, bias, dropout, out, lse, scale_log2, heads, group, queries, keys, lists, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``softmax(scale q k^T + bias, seen) v`` and its log-sum-exp for one box of queries, one head and one batch
    entry."""
    box = tl.program_id(0) % queries.boxes
    plane = tl.program_id(0) // queries.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    kv_head = head // group
    at = coordinates(queries, box, QUERIES)
    there = is_token(at)
    q_rows = rows(query, batch, head, at, head_dim, WIDTH)
    acc = tl.zeros([q_rows.shape[0], VALUE_WIDTH], tl.float32)
    top = tl.full([q_rows.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([q_rows.shape[0]], tl.float32)
    middle = tl.load(lists.middle + box)
    for meeting in range(tl.load(lists.begin + box), middle):
        acc, top, total = meet(
            acc, top, total, q_rows, at, tl.load(lists.other + meeting), key, value, batch, head, kv_head, hidden,
            bias, dropout, plane, queries, keys, relation, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, TERMS, False, PRECISION,
        )  # fmt: skip
    for meeting in range(middle, tl.load(lists.begin + box + 1)):
        acc, top, total = meet(
            acc, top, total, q_rows, at, tl.load(lists.other + meeting), key, value, batch, head, kv_head, hidden,
            bias, dropout, plane, queries, keys, relation, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, KEYS, RANK, TERMS, True, PRECISION,
        )  # fmt: skip
    nothing = total == 0.0
    acc = acc / tl.where(nothing, 1.0, total)[:, None]
    if dropout is not None:
        acc *= dropout.enlarge
    row = (batch * queries.tokens + number(at, queries)) * heads + head
    store_rows(out, row, there, acc, value_dim, VALUE_WIDTH)
    norm = tl.where(nothing, float("-inf"), (top + tl.log2(tl.where(nothing, 1.0, total))) * 0.6931471805599453)
    tl.store(lse + row, norm, mask=there)
