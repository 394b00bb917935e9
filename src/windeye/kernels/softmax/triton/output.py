"""Outputs and normalisers: a box of queries meets its boxes of keys with a running maximum."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import coordinates, is_token, offsets, product, rows, seen, store_rows


@triton.jit
def meet(
    acc, top, total, q_rows, q0, q1, q2, other,
    k, k_0, k_1, k_2, k_dim, v, v_0, v_1, v_2, v_dim, hidden, keys1, keys2,
    k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place, scale_log2,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, RANK: tl.constexpr, TERMS: tl.constexpr,
    MASKED: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The running state after one more box of keys."""
    k0, k1, k2 = coordinates(k_axis0, k_axis1, k_axis2, other, k_boxes1, k_boxes2, K0, K1, K2)
    there = is_token(k0, k1, k2)
    k_rows = rows(k, offsets(k0, k1, k2, k_0, k_1, k_2), there, k_dim, head_dim, WIDTH)
    s = product(q_rows, tl.trans(k_rows), PRECISION) * scale_log2
    if MASKED:
        a, b, c = k0[None, :], k1[None, :], k2[None, :]
        shown = seen(q0[:, None], q1[:, None], q2[:, None], a, b, c, start, span, place, RANK, TERMS)
        s = tl.where(shown, s, float("-inf"))
    if HIDDEN:
        token = (tl.maximum(k0, 0) * keys1 + tl.maximum(k1, 0)) * keys2 + tl.maximum(k2, 0)
        s = tl.where((tl.load(hidden + token) == 0)[None, :], s, float("-inf"))
    risen = tl.maximum(top, tl.max(s, 1))
    reference = tl.where(risen == float("-inf"), 0.0, risen)
    p = tl.exp2(s - reference[:, None])
    shrink = tl.exp2(top - reference)
    v_rows = rows(v, offsets(k0, k1, k2, v_0, v_1, v_2), there, v_dim, value_dim, VALUE_WIDTH)
    acc = acc * shrink[:, None] + product(p.to(v_rows.dtype), v_rows, PRECISION)
    return acc, risen, total * shrink + tl.sum(p, 1)


@triton.jit
def attention(
    q, q_batch, q_0, q_1, q_2, q_head, q_dim, k, k_batch, k_0, k_1, k_2, k_head, k_dim,
    v, v_batch, v_0, v_1, v_2, v_head, v_dim, hidden, out, lse, scale_log2, HEADS, GROUP,
    tokens, queries1, queries2, keys, keys1, keys2, begin, middle, others,
    q_axis0, q_axis1, q_axis2, q_boxes1, q_boxes2, k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    RANK: tl.constexpr, TERMS: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``softmax(scale q k^T, seen) v`` and its log-sum-exp for one box of queries, one head and one batch entry."""
    box = tl.program_id(0)
    head = (tl.program_id(1) % HEADS).to(tl.int64)
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    q0, q1, q2 = coordinates(q_axis0, q_axis1, q_axis2, box, q_boxes1, q_boxes2, Q0, Q1, Q2)
    there = is_token(q0, q1, q2)
    q_rows = rows(
        q + batch * q_batch + head * q_head, offsets(q0, q1, q2, q_0, q_1, q_2), there, q_dim, head_dim, WIDTH
    )
    k += batch * k_batch + (head // GROUP) * k_head
    v += batch * v_batch + (head // GROUP) * v_head
    if HIDDEN:
        hidden += batch * keys
    acc = tl.zeros([Q0 * Q1 * Q2, VALUE_WIDTH], tl.float32)
    top = tl.full([Q0 * Q1 * Q2], float("-inf"), tl.float32)
    total = tl.zeros([Q0 * Q1 * Q2], tl.float32)
    first = tl.load(begin + box)
    partly = tl.load(middle + box)
    for number in range(first, partly):
        acc, top, total = meet(
            acc, top, total, q_rows, q0, q1, q2, tl.load(others + number),
            k, k_0, k_1, k_2, k_dim, v, v_0, v_1, v_2, v_dim, hidden, keys1, keys2,
            k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, K0, K1, K2, RANK, TERMS, False, HIDDEN, PRECISION,
        )  # fmt: skip
    for number in range(partly, tl.load(begin + box + 1)):
        acc, top, total = meet(
            acc, top, total, q_rows, q0, q1, q2, tl.load(others + number),
            k, k_0, k_1, k_2, k_dim, v, v_0, v_1, v_2, v_dim, hidden, keys1, keys2,
            k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place, scale_log2,
            head_dim, value_dim, WIDTH, VALUE_WIDTH, K0, K1, K2, RANK, TERMS, True, HIDDEN, PRECISION,
        )  # fmt: skip
    nothing = total == 0.0
    acc = acc / tl.where(nothing, 1.0, total)[:, None]
    row = batch * tokens + offsets(q0, q1, q2, queries1 * queries2, queries2, 1)
    store_rows(out, (row * HEADS + head) * value_dim, there, acc, value_dim, VALUE_WIDTH)
    norm = tl.where(nothing, float("-inf"), (top + tl.log2(tl.where(nothing, 1.0, total))) * 0.6931471805599453)
    tl.store(lse + row * HEADS + head, norm, mask=there)
