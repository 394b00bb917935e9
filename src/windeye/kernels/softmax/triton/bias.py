"""The gradient of a relative table. Pairs of boxes that lie equally far apart hold the same offsets at the same lanes:
a program adds up their gradients lane by lane, takes the sums of equal offsets once at its end, and is the only one
that writes them."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import across, coordinates, down, lanes, listed, places, product, rows
from windeye.kernels.softmax.triton.gradients import left, norms
from windeye.kernels.softmax.triton.pairs import place, powers, shown_logits


@triton.jit
def key_lanes(first, EXTENTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, OFFSETS: tl.constexpr):
    """[queries, offsets]: the lane of the key that lies so far from the query, -1 where the box of keys ends."""
    lane = tl.arange(0, QUERIES[0] * QUERIES[1] * QUERIES[2])[:, None]
    offset = (first + tl.arange(0, OFFSETS))[None, :]
    k0 = offset // (EXTENTS[2] * EXTENTS[1]) + lane // (QUERIES[2] * QUERIES[1]) - (QUERIES[0] - 1)
    k1 = offset // EXTENTS[2] % EXTENTS[1] + lane // QUERIES[2] % QUERIES[1] - (QUERIES[1] - 1)
    k2 = offset % EXTENTS[2] + lane % QUERIES[2] - (QUERIES[2] - 1)
    inside = (k0 >= 0) & (k0 < KEYS[0]) & (k1 >= 0) & (k1 < KEYS[1]) & (k2 >= 0) & (k2 < KEYS[2])
    return tl.where(inside, (k0 * KEYS[1] + k1) * KEYS[2] + k2, -1)


@triton.jit
def grad_bias(
    query, key, value, hidden, bias, dropout, pulls, partial, scale_log2, batches, share, heads, group,
    queries, keys, groups, begin, q_boxes, kv_boxes, relation,
    head_dim: tl.constexpr, value_dim: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, EXTENTS: tl.constexpr, OFFSETS: tl.constexpr,
    RANK: tl.constexpr, CHECKS: tl.constexpr, RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums of one group of pairs of boxes, one head and ``share`` batch entries."""
    own = tl.program_id(0) % groups
    head = (tl.program_id(0) // groups % heads).to(tl.int64)
    first = tl.program_id(0) // groups // heads * share
    q_lane, k_lane = lanes(queries, QUERIES), lanes(keys, KEYS)
    q_places, g_places = places(query, q_lane, WIDTH), places(pulls.grad_out, q_lane, VALUE_WIDTH)
    k_places, v_places = places(key, k_lane, WIDTH), places(value, k_lane, VALUE_WIDTH)
    total = tl.zeros([QUERIES[0] * QUERIES[1] * QUERIES[2], KEYS[0] * KEYS[1] * KEYS[2]], tl.float32)
    for entry in range(first, tl.minimum(first + share, batches)):
        batch = tl.cast(entry, tl.int64)
        for pair in range(tl.load(begin + own), tl.load(begin + own + 1)):
            q_start, k_start = listed(queries, tl.load(q_boxes + pair)), listed(keys, tl.load(kv_boxes + pair))
            at, of_keys = coordinates(queries, q_start, q_lane, False), coordinates(keys, k_start, k_lane, False)
            q_rows = rows(query, batch, head, q_start, q_places, at, head_dim, WIDTH, False)
            g_rows = rows(pulls.grad_out, batch, head, q_start, g_places, at, value_dim, VALUE_WIDTH, False)
            k_rows = rows(key, batch, head // group, k_start, k_places, of_keys, head_dim, WIDTH, False)
            v_rows = rows(value, batch, head // group, k_start, v_places, of_keys, value_dim, VALUE_WIDTH, False)
            norm, less = norms(pulls, batch, head, heads, queries, at, False)
            q, k = down(at), across(coordinates(keys, k_start, k_lane, True))
            q_place, k_place = place(q_start, bias) + place(q_lane, bias), place(k_lane, bias)
            s = shown_logits(
                q_rows, k_rows, q, k, of_keys, batch, head, k_start, q_place, k_place, hidden, bias, keys, relation,
                scale_log2, RANK, CHECKS, False, RAW, PRECISION,
            )  # fmt: skip
            pull = product(g_rows, tl.trans(v_rows), PRECISION)
            pull = left(pull, q, k, batch * heads + head, dropout, queries, keys)
            total += powers(s, norm[:, None], scale_log2, RAW) * (pull - less[:, None])
    all_offsets: tl.constexpr = EXTENTS[0] * EXTENTS[1] * EXTENTS[2]
    partial += tl.program_id(0).to(tl.int64) * all_offsets
    for start in tl.static_range(0, all_offsets, OFFSETS):
        lane = key_lanes(start, EXTENTS, QUERIES, KEYS, OFFSETS)
        sums = tl.sum(tl.where(lane >= 0, tl.gather(total, tl.maximum(lane, 0), 1), 0.0), 0)
        tl.store(partial + start + tl.arange(0, OFFSETS), sums)
