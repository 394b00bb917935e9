"""Gradients: boxes of queries collect theirs from the keys they meet, boxes of keys from the queries."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import coordinates, is_token, offsets, product, rows, seen, store_rows

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def weights(
    q_rows, k_rows, norm, q0, q1, q2, k0, k1, k2, hidden, keys1, keys2, start, span, place, scale,
    RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys] of the map, again; rows whose norm is infinite are zero."""
    s = product(q_rows, tl.trans(k_rows), PRECISION) * scale
    # Before the exponential, which what is not seen could overflow.
    if MASKED:
        q0, q1, q2 = q0[:, None], q1[:, None], q2[:, None]
        a, b, c = k0[None, :], k1[None, :], k2[None, :]
        s = tl.where(seen(q0, q1, q2, a, b, c, start, span, place, RANK, TERMS), s, float("-inf"))
    if HIDDEN:
        token = (tl.maximum(k0, 0) * keys1 + tl.maximum(k1, 0)) * keys2 + tl.maximum(k2, 0)
        s = tl.where((tl.load(hidden + token) == 0)[None, :], s, float("-inf"))
    return tl.exp2((s - norm[:, None]) * LOG2E)


@triton.jit
def norms(lse, delta, place, there):
    """Normalisers and what gradients of logits have subtracted. A row that saw nothing, or that is none, gets an
    infinite norm, so that its weights are zero."""
    norm = tl.load(lse + place, mask=there, other=float("inf"))
    norm = tl.where(norm == float("-inf"), float("inf"), norm)
    return norm, tl.load(delta + place, mask=there, other=0.0)


@triton.jit
def grad_query(
    q, q_batch, q_0, q_1, q_2, q_head, q_dim, k, k_batch, k_0, k_1, k_2, k_head, k_dim,
    v, v_batch, v_0, v_1, v_2, v_head, v_dim, hidden, lse, delta, grad_out, grad_q, scale, HEADS, GROUP,
    tokens, queries1, queries2, keys, keys1, keys2, begin, others,
    q_axis0, q_axis1, q_axis2, q_boxes1, q_boxes2, k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    RANK: tl.constexpr, TERMS: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``scale sum_k A (grad_out v^T - delta) k`` of one box of queries."""
    box = tl.program_id(0)
    head = (tl.program_id(1) % HEADS).to(tl.int64)
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    q0, q1, q2 = coordinates(q_axis0, q_axis1, q_axis2, box, q_boxes1, q_boxes2, Q0, Q1, Q2)
    there = is_token(q0, q1, q2)
    q += batch * q_batch + head * q_head
    k += batch * k_batch + (head // GROUP) * k_head
    v += batch * v_batch + (head // GROUP) * v_head
    if HIDDEN:
        hidden += batch * keys
    row = (batch * tokens + offsets(q0, q1, q2, queries1 * queries2, queries2, 1)) * HEADS + head
    q_rows = rows(q, offsets(q0, q1, q2, q_0, q_1, q_2), there, q_dim, head_dim, WIDTH)
    g_rows = rows(grad_out, row * value_dim, there, 1, value_dim, VALUE_WIDTH)
    norm, less = norms(lse, delta, row, there)
    acc = tl.zeros([Q0 * Q1 * Q2, WIDTH], tl.float32)
    for number in range(tl.load(begin + box), tl.load(begin + box + 1)):
        other = tl.load(others + number)
        k0, k1, k2 = coordinates(k_axis0, k_axis1, k_axis2, other, k_boxes1, k_boxes2, K0, K1, K2)
        real = is_token(k0, k1, k2)
        k_rows = rows(k, offsets(k0, k1, k2, k_0, k_1, k_2), real, k_dim, head_dim, WIDTH)
        v_rows = rows(v, offsets(k0, k1, k2, v_0, v_1, v_2), real, v_dim, value_dim, VALUE_WIDTH)
        p = weights(
            q_rows, k_rows, norm, q0, q1, q2, k0, k1, k2, hidden, keys1, keys2, start, span, place, scale,
            RANK, TERMS, True, HIDDEN, PRECISION,
        )  # fmt: skip
        ds = p * (product(g_rows, tl.trans(v_rows), PRECISION) - less[:, None])
        acc += product(ds.to(k_rows.dtype), k_rows, PRECISION)
    store_rows(grad_q, row * head_dim, there, acc * scale, head_dim, WIDTH)


@triton.jit
def grad_key_value(
    q, q_batch, q_0, q_1, q_2, q_head, q_dim, k, k_batch, k_0, k_1, k_2, k_head, k_dim,
    v, v_batch, v_0, v_1, v_2, v_head, v_dim, hidden, lse, delta, grad_out, grad_k, grad_v, scale, HEADS, GROUP,
    tokens, queries1, queries2, keys, keys1, keys2, begin, others,
    q_axis0, q_axis1, q_axis2, q_boxes1, q_boxes2, k_axis0, k_axis1, k_axis2, k_boxes1, k_boxes2, start, span, place,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    RANK: tl.constexpr, TERMS: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``A^T grad_out`` and ``scale sum_q A (grad_out v^T - delta) q`` of one box of keys, over the query heads that
    share it."""
    box = tl.program_id(0)
    kv_heads = HEADS // GROUP
    kv_head = (tl.program_id(1) % kv_heads).to(tl.int64)
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    k0, k1, k2 = coordinates(k_axis0, k_axis1, k_axis2, box, k_boxes1, k_boxes2, K0, K1, K2)
    real = is_token(k0, k1, k2)
    k += batch * k_batch + kv_head * k_head
    v += batch * v_batch + kv_head * v_head
    if HIDDEN:
        hidden += batch * keys
    k_rows = rows(k, offsets(k0, k1, k2, k_0, k_1, k_2), real, k_dim, head_dim, WIDTH)
    v_rows = rows(v, offsets(k0, k1, k2, v_0, v_1, v_2), real, v_dim, value_dim, VALUE_WIDTH)
    dk = tl.zeros([K0 * K1 * K2, WIDTH], tl.float32)
    dv = tl.zeros([K0 * K1 * K2, VALUE_WIDTH], tl.float32)
    first = tl.load(begin + box)
    end = tl.load(begin + box + 1)
    for shared in range(GROUP):
        head = kv_head * GROUP + shared
        q_own = q + batch * q_batch + head * q_head
        for number in range(first, end):
            other = tl.load(others + number)
            q0, q1, q2 = coordinates(q_axis0, q_axis1, q_axis2, other, q_boxes1, q_boxes2, Q0, Q1, Q2)
            there = is_token(q0, q1, q2)
            row = (batch * tokens + offsets(q0, q1, q2, queries1 * queries2, queries2, 1)) * HEADS + head
            q_rows = rows(q_own, offsets(q0, q1, q2, q_0, q_1, q_2), there, q_dim, head_dim, WIDTH)
            g_rows = rows(grad_out, row * value_dim, there, 1, value_dim, VALUE_WIDTH)
            norm, less = norms(lse, delta, row, there)
            p = weights(
                q_rows, k_rows, norm, q0, q1, q2, k0, k1, k2, hidden, keys1, keys2, start, span, place, scale,
                RANK, TERMS, True, HIDDEN, PRECISION,
            )  # fmt: skip
            dv += product(tl.trans(p.to(g_rows.dtype)), g_rows, PRECISION)
            ds = p * (product(g_rows, tl.trans(v_rows), PRECISION) - less[:, None])
            dk += product(tl.trans(ds.to(q_rows.dtype)), q_rows, PRECISION)
    row = (batch * keys + offsets(k0, k1, k2, keys1 * keys2, keys2, 1)) * kv_heads + kv_head
    store_rows(grad_k, row * head_dim, real, dk * scale, head_dim, WIDTH)
    store_rows(grad_v, row * value_dim, real, dv, value_dim, VALUE_WIDTH)
