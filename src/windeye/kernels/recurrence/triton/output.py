"""Outputs of all chunks at once: the sums inside a chunk and what the state before it adds."""

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
    load_tile,
    product,
    store_tile,
    weight,
)


@triton.jit
def chunk_output(
    q, q_entry, q_token, q_head, q_dim,
    k, k_entry, k_token, k_head, k_dim,
    v, v_entry, v_token, v_head, v_column, GROUP,
    decay, left, right, coefficient,
    chunk_table, states, out, denominator, scale, epsilon,
    tokens, HEADS, head_dim: tl.constexpr, features: tl.constexpr, columns: tl.constexpr, state_columns: tl.constexpr,
    DECAY: tl.constexpr, TAYLOR: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, DIM: tl.constexpr, FEATURES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``scale (tril(weight(q k^T) decay) v + since phi(q) state)``, over its own column of ones with ``NORMALIZE``."""
    number = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    entry, first, length = chunk_at(chunk_table, number)
    q_base = q + entry * q_entry + first * q_token + head * q_head
    k_base = k + entry * k_entry + first * k_token + (head // GROUP) * k_head
    v_base = v + entry * v_entry + first * v_token + (head // GROUP) * v_head
    state = states + (number * HEADS + head) * features * state_columns

    u = tl.zeros([CHUNK, CHUNK], tl.float32)
    for offset in range(0, head_dim, DIM):
        dim = offset + tl.arange(0, DIM)
        q_tile = load_tile(q_base, q_token, q_dim, dim, head_dim, length, CHUNK)
        k_tile = load_tile(k_base, k_token, k_dim, dim, head_dim, length, CHUNK)
        u += product(q_tile, tl.trans(k_tile), PRECISION)
    pairs = faded(decay_of_pairs(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK), weight(u, TAYLOR))

    carried = tl.zeros([CHUNK, COLUMNS], tl.float32)
    total = tl.zeros([CHUNK], tl.float32)
    for offset in range(0, features, FEATURES):
        feature = offset + tl.arange(0, FEATURES)
        phi = load_features(
            q_base, q_token, q_dim, left, right, coefficient, feature, features, head_dim, length, TAYLOR, CHUNK
        )
        known = (feature < features)[:, None] & (column < columns)[None, :]
        tile = tl.load(state + feature[:, None] * state_columns + column[None, :], mask=known, other=0.0)
        carried += product(phi, tile, PRECISION)
        if NORMALIZE:
            edge = tl.load(state + feature * state_columns + columns, mask=feature < features, other=0.0)
            total += tl.sum(phi * edge[None, :], 1)
    since, _until, _whole = decay_of_rows(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK)

    v_tile = load_tile(v_base, v_token, v_column, column, columns, length, CHUNK)
    sums = product(pairs, v_tile, PRECISION) + faded(since[:, None], carried)
    at_row = (entry * tokens + first) * HEADS + head
    if NORMALIZE:
        total = tl.sum(pairs, 1) + faded(since, total) + epsilon
        sums = sums / total[:, None]
        if tl.program_id(2) == 0:
            row = tl.arange(0, CHUNK)
            tl.store(denominator + at_row + row.to(tl.int64) * HEADS, total, mask=row < length)
    store_tile(out + at_row * columns, HEADS * columns, scale * sums, column, columns, length, CHUNK)
