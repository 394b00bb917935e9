"""The walk over the chunks of a sequence: chunk states and their scan in one."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.recurrence.triton.tiles import (
    chunk_at,
    decay_of_rows,
    faded,
    load_features,
    load_rows,
    load_tile,
    product,
)


@triton.jit
def walk(
    x, x_entry, x_token, x_head, x_dim, X_GROUP,
    y, y_entry, y_token, y_head, y_column, Y_GROUP,
    factor, last, scale,
    decay, left, right, coefficient,
    chunk_table, chunks_of_sequence,
    start, states, end,
    tokens, HEADS, head_dim: tl.constexpr, features: tl.constexpr, columns: tl.constexpr, state_columns: tl.constexpr,
    REVERSE: tl.constexpr, DECAY: tl.constexpr, TAYLOR: tl.constexpr, NORMALIZE: tl.constexpr,
    HAS_START: tl.constexpr, HAS_END: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, FEATURES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the state before each chunk, starting at ``start``, and the last one into ``end``.

    To the right, x is the key, y the value and a chunk adds ``until phi(x)^T y``. To the left (``REVERSE``), x is the
    query, y the gradient of the output, and a chunk adds ``since phi(x)^T (factor y)``: the state is then the gradient
    of the state after the chunk. With ``NORMALIZE`` the state has one more column, fed by ones or by ``last``.
    """
    sequence = tl.program_id(0) // HEADS
    head = (tl.program_id(0) % HEADS).to(tl.int64)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    known = (feature < features)[:, None] & (column < columns)[None, :]
    place = feature.to(tl.int64)[:, None] * state_columns + column[None, :]
    edge = feature.to(tl.int64) * state_columns + columns
    size = features * state_columns
    at_sequence = (sequence.to(tl.int64) * HEADS + head) * size

    state = tl.zeros([FEATURES, COLUMNS], tl.float32)
    total = tl.zeros([FEATURES], tl.float32)
    if HAS_START:
        state += tl.load(start + at_sequence + place, mask=known, other=0.0)
        if NORMALIZE:
            total += tl.load(start + at_sequence + edge, mask=feature < features, other=0.0)

    begin = tl.load(chunks_of_sequence + sequence)
    stop = tl.load(chunks_of_sequence + sequence + 1)
    for step in range(stop - begin):
        number = begin + step
        if REVERSE:
            number = stop - 1 - step
        at_chunk = (number.to(tl.int64) * HEADS + head) * size
        tl.store(states + at_chunk + place, state, mask=known)
        entry, first, length = chunk_at(chunk_table, number)
        since, until, whole = decay_of_rows(decay, entry, first, head, length, tokens, HEADS, DECAY, CHUNK)
        x_base = x + entry * x_entry + first * x_token + (head // X_GROUP) * x_head
        y_base = y + entry * y_entry + first * y_token + (head // Y_GROUP) * y_head
        rows = until
        if REVERSE:
            rows = since * scale
        ending = rows
        if NORMALIZE and REVERSE:
            at_row = (entry * tokens + first) * HEADS + head
            rows = since * load_rows(factor + at_row, HEADS, length, CHUNK)
            ending = since * load_rows(last + at_row, HEADS, length, CHUNK)
        phi = load_features(
            x_base, x_token, x_dim, left, right, coefficient, feature, features, head_dim, length, TAYLOR, CHUNK
        )
        tile = load_tile(y_base, y_token, y_column, column, columns, length, CHUNK)
        state = faded(whole, state) + product(tl.trans(phi), tile * rows[:, None], PRECISION)
        if NORMALIZE:
            if tl.program_id(2) == 0:
                tl.store(states + at_chunk + edge, total, mask=feature < features)
            total = faded(whole, total) + tl.sum(phi * ending[:, None], 0)

    if HAS_END:
        tl.store(end + at_sequence + place, state, mask=known)
        if NORMALIZE:  # noqa: SIM102  known when the kernel is compiled, unlike the other
            if tl.program_id(2) == 0:
                tl.store(end + at_sequence + edge, total, mask=feature < features)
