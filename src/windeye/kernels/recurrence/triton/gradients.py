"""Gradients of all chunks at once. With g the gradient of the sums, u = <q, k>, S the state before the chunk and P the
gradient of the state after it:

    grad_q = tril(g v^T decay weight'(u)) k + since phi'(q)^T (g S^T)
    grad_k = tril(g v^T decay weight'(u))^T q + until phi'(k)^T (v P^T)
    grad_v = tril(weight(u) decay)^T g + until phi(k) P
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.recurrence.triton.tiles import (
    chunk_at,
    decay_of_pairs,
    decay_of_rows,
    faded,
    load_features,
    load_rows,
    load_tile,
    product,
    pulled_back,
    store_tile,
    weight,
)


@triton.jit
def through_states(
    g_base, g_token, g_column, v_base, v_token, v_column, factor, last, state, pull, feature, features, columns,
    state_columns, length, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr, CHUNK: tl.constexpr,
    FEATURES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``g S^T``, ``v P^T`` and ``<S, P>`` of one tile of features; the column of the denominator included."""
    from_query = tl.zeros([CHUNK, FEATURES], tl.float32)
    from_key = tl.zeros([CHUNK, FEATURES], tl.float32)
    along = tl.zeros([FEATURES], tl.float32)
    for offset in range(0, columns, COLUMNS):
        column = offset + tl.arange(0, COLUMNS)
        known = (feature < features)[:, None] & (column < columns)[None, :]
        place = feature[:, None] * state_columns + column[None, :]
        state_tile = tl.load(state + place, mask=known, other=0.0)
        pull_tile = tl.load(pull + place, mask=known, other=0.0)
        g_tile = load_tile(g_base, g_token, g_column, column, columns, length, CHUNK) * factor[:, None]
        v_tile = load_tile(v_base, v_token, v_column, column, columns, length, CHUNK)
        from_query += product(g_tile, tl.trans(state_tile), PRECISION)
        from_key += product(v_tile, tl.trans(pull_tile), PRECISION)
        along += tl.sum(state_tile * pull_tile, 1)
    if NORMALIZE:
        edge = feature * state_columns + columns
        state_edge = tl.load(state + edge, mask=feature < features, other=0.0)
        pull_edge = tl.load(pull + edge, mask=feature < features, other=0.0)
        from_query += last[:, None] * state_edge[None, :]
        from_key += pull_edge[None, :]
        along += state_edge * pull_edge
    return from_query, from_key, along


@triton.jit
def grad_query_key(
    q, q_entry, q_token, q_head, q_dim,
    k, k_entry, k_token, k_head, k_dim,
    v, v_entry, v_token, v_head, v_column, GROUP,
    g, g_entry, g_token, g_head, g_column, factor, last, scale,
    decay, left, right, coefficient,
    chunk_table, states, pulls, grad_q, grad_k, grad_decay,
    tokens, HEADS, head_dim: tl.constexpr, features: tl.constexpr, columns: tl.constexpr, state_columns: tl.constexpr,
    DECAY: tl.constexpr, TAYLOR: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, DIM: tl.constexpr, FEATURES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One tile of coordinates of grad_q and grad_k (per query head), and its share of the gradient of the log-decay.

    The log-decay of token m scales what every token i >= m reads of every j < m and of the state, so its gradient adds
    up the contributions ``g_i out_ij`` of these pairs: sums of own terms again. They are linear in the coordinates,
    hence the shares. With one decay a head, the share of a chunk is a single number.
    """
    number = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    dim = tl.program_id(2) * DIM + tl.arange(0, DIM)
    entry, first, length = chunk_at(chunk_table, number)
    q_base = q + entry * q_entry + first * q_token + head * q_head
    k_base = k + entry * k_entry + first * k_token + (head // GROUP) * k_head
    v_base = v + entry * v_entry + first * v_token + (head // GROUP) * v_head
    g_base = g + entry * g_entry + first * g_token + head * g_head
    state = states + (number * HEADS + head) * features * state_columns
    pull = pulls + (number * HEADS + head) * features * state_columns
    at_row = (entry * tokens + first) * HEADS + head
    row = tl.arange(0, CHUNK)
    g_factor = tl.full([CHUNK], 1.0, tl.float32) * scale
    g_last = tl.zeros([CHUNK], tl.float32)
    if NORMALIZE:
        g_factor = load_rows(factor + at_row, HEADS, length, CHUNK)
        g_last = load_rows(last + at_row, HEADS, length, CHUNK)

    along = tl.zeros([CHUNK, CHUNK], tl.float32)
    for offset in range(0, columns, COLUMNS):
        column = offset + tl.arange(0, COLUMNS)
        g_tile = load_tile(g_base, g_token, g_column, column, columns, length, CHUNK)
        v_tile = load_tile(v_base, v_token, v_column, column, columns, length, CHUNK)
        along += product(g_tile, tl.trans(v_tile), PRECISION)
    along = along * g_factor[:, None] + g_last[:, None]
    kept = decay_of_pairs(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK)
    since, until, whole = decay_of_rows(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK)

    q_tile = load_tile(q_base, q_token, q_dim, dim, head_dim, length, CHUNK)
    k_tile = load_tile(k_base, k_token, k_dim, dim, head_dim, length, CHUNK)
    u = product(q_tile, tl.trans(k_tile), PRECISION)
    slope = faded(kept, along)
    contribution = slope * weight(u, TAYLOR)
    if TAYLOR:
        slope = slope * (1.0 + u)
    q_grad = product(slope, k_tile, PRECISION)
    k_grad = product(tl.trans(slope), q_tile, PRECISION)

    read = tl.zeros([CHUNK], tl.float32)
    written = tl.zeros([CHUNK], tl.float32)
    passed = 0.0
    if TAYLOR:
        for offset in range(0, features, FEATURES):
            feature = offset + tl.arange(0, FEATURES)
            from_query, from_key, both = through_states(
                g_base, g_token, g_column, v_base, v_token, v_column, g_factor, g_last, state, pull, feature, features,
                columns, state_columns, length, NORMALIZE, PRECISION, CHUNK, FEATURES, COLUMNS,
            )  # fmt: skip
            from_query = faded(since[:, None], from_query)
            from_key = faded(until[:, None], from_key)
            phi_q = load_features(
                q_base, q_token, q_dim, left, right, coefficient, feature, features, head_dim, length, True, CHUNK
            )
            phi_k = load_features(
                k_base, k_token, k_dim, left, right, coefficient, feature, features, head_dim, length, True, CHUNK
            )
            read += tl.sum(phi_q * from_query, 1)
            written += tl.sum(phi_k * from_key, 1)
            passed += tl.sum(both, 0)
            q_grad += pulled_back(
                from_query, q_base, q_token, q_dim, left, right, coefficient, feature, features, dim, head_dim, length,
                CHUNK,
            )  # fmt: skip
            k_grad += pulled_back(
                from_key, k_base, k_token, k_dim, left, right, coefficient, feature, features, dim, head_dim, length,
                CHUNK,
            )  # fmt: skip
    else:
        from_query, from_key, both = through_states(
            g_base, g_token, g_column, v_base, v_token, v_column, g_factor, g_last, state, pull, dim, features, columns,
            state_columns, length, NORMALIZE, PRECISION, CHUNK, DIM, COLUMNS,
        )  # fmt: skip
        from_query = faded(since[:, None], from_query)
        from_key = faded(until[:, None], from_key)
        read += tl.sum(q_tile * from_query, 1)
        written += tl.sum(k_tile * from_key, 1)
        passed += tl.sum(both, 0)
        q_grad += from_query
        k_grad += from_key
    store_tile(grad_q + at_row * head_dim, HEADS * head_dim, q_grad, dim, head_dim, length, CHUNK)
    store_tile(grad_k + at_row * head_dim, HEADS * head_dim, k_grad, dim, head_dim, length, CHUNK)

    passed = faded(whole, passed)
    if DECAY == "token":
        crossing = tl.cumsum(contribution, 1) - contribution
        later = row[:, None] >= row[None, :]
        share = tl.sum(tl.where(later, crossing + read[:, None], 0.0), 0)
        share += tl.sum(tl.where(row[:, None] < row[None, :], written[:, None], 0.0), 0) + passed
        shares = tl.num_programs(2)
        tl.store(grad_decay + (at_row + row.to(tl.int64) * HEADS) * shares + tl.program_id(2), share, mask=row < length)
    elif DECAY == "head":
        distance = (row[:, None] - row[None, :]).to(tl.float32)
        share = tl.sum(read * (row + 1) + written * (length - 1 - row) + tl.sum(contribution * distance, 1), 0)
        at_chunk = (number * HEADS + head) * tl.num_programs(2) + tl.program_id(2)
        tl.store(grad_decay + at_chunk, share + passed * length)


@triton.jit
def grad_value(
    q, q_entry, q_token, q_head, q_dim,
    k, k_entry, k_token, k_head, k_dim, GROUP,
    g, g_entry, g_token, g_head, g_column, factor, scale,
    decay, left, right, coefficient,
    chunk_table, pulls, grad_v,
    tokens, HEADS, head_dim: tl.constexpr, features: tl.constexpr, columns: tl.constexpr, state_columns: tl.constexpr,
    DECAY: tl.constexpr, TAYLOR: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, DIM: tl.constexpr, FEATURES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One tile of value columns, per query head."""
    number = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    entry, first, length = chunk_at(chunk_table, number)
    q_base = q + entry * q_entry + first * q_token + head * q_head
    k_base = k + entry * k_entry + first * k_token + (head // GROUP) * k_head
    g_base = g + entry * g_entry + first * g_token + head * g_head
    pull = pulls + (number * HEADS + head) * features * state_columns
    at_row = (entry * tokens + first) * HEADS + head

    u = tl.zeros([CHUNK, CHUNK], tl.float32)
    for offset in range(0, head_dim, DIM):
        dim = offset + tl.arange(0, DIM)
        q_tile = load_tile(q_base, q_token, q_dim, dim, head_dim, length, CHUNK)
        k_tile = load_tile(k_base, k_token, k_dim, dim, head_dim, length, CHUNK)
        u += product(q_tile, tl.trans(k_tile), PRECISION)
    pairs = faded(decay_of_pairs(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK), weight(u, TAYLOR))
    g_tile = load_tile(g_base, g_token, g_column, column, columns, length, CHUNK)
    if NORMALIZE:
        g_tile = g_tile * load_rows(factor + at_row, HEADS, length, CHUNK)[:, None]
    else:
        g_tile = g_tile * scale

    carried = tl.zeros([CHUNK, COLUMNS], tl.float32)
    for offset in range(0, features, FEATURES):
        feature = offset + tl.arange(0, FEATURES)
        phi = load_features(
            k_base, k_token, k_dim, left, right, coefficient, feature, features, head_dim, length, TAYLOR, CHUNK
        )
        known = (feature < features)[:, None] & (column < columns)[None, :]
        tile = tl.load(pull + feature[:, None] * state_columns + column[None, :], mask=known, other=0.0)
        carried += product(phi, tile, PRECISION)
    _since, until, _whole = decay_of_rows(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK)
    tile = product(tl.trans(pairs), g_tile, PRECISION) + faded(until[:, None], carried)
    store_tile(grad_v + at_row * columns, HEADS * columns, tile, column, columns, length, CHUNK)
