"""What a box of queries and a box of keys are to each other: logits, what is seen, and what is dropped."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import is_token, number, product


@triton.jit
def within(query, key, relation, table):
    """Whether one axis of one term shows the key coordinates to those of the queries."""
    begin = tl.load(relation.place + 3 * table)
    length = tl.load(relation.place + 3 * table + 1)
    step = tl.load(relation.place + 3 * table + 2)
    of_query = begin + tl.maximum(query, 0)
    distance = key[None, :] - tl.load(relation.start + of_query)[:, None]
    distance = tl.where(distance < 0, distance + length, distance)
    return (distance < tl.load(relation.span + of_query)[:, None]) & (distance % step == 0)


@triton.jit
def seen(q, k, relation, RANK: tl.constexpr, TERMS: tl.constexpr):
    """[queries, keys]: whether queries see keys, by the tables of the pattern."""
    shown = is_token(q)[:, None] & (k[2] < 0)[None, :]  # nothing, in the shape of all pairs
    for term in tl.static_range(TERMS):
        here = within(q[2], k[2], relation, 3 * term + 2)
        if RANK > 1:
            here = here & within(q[1], k[1], relation, 3 * term + 1)
        if RANK > 2:
            here = here & within(q[0], k[0], relation, 3 * term)
        shown = shown | here
    return shown & is_token(q)[:, None] & is_token(k)[None, :]


@triton.jit
def place(at, bias):
    """Where tokens stand in a relative table, up to the centre."""
    first = tl.maximum(at[0], 0) // bias.unit0 * bias.stride0
    return first + tl.maximum(at[1], 0) // bias.unit1 * bias.stride1 + tl.maximum(at[2], 0) // bias.unit2


@triton.jit
def biases(q, k, bias, head):
    """[queries, keys] of a relative table; pairs that are not seen may find any entry or none."""
    away = bias.centre + place(k, bias)[None, :] - place(q, bias)[:, None]
    known = (away >= 0) & (away < bias.size)
    return tl.load(bias.table + head * bias.size + away, mask=known, other=0.0)


@triton.jit
def logits(
    q_rows, k_rows, q, k, batch, head, keys, hidden, bias, relation, scale_log2,
    RANK: tl.constexpr, TERMS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys] in units of log 2, ``-inf`` where a key is not seen."""
    s = product(q_rows, tl.trans(k_rows), PRECISION) * scale_log2
    if bias is not None:
        s += biases(q, k, bias, head)
    if MASKED:
        s = tl.where(seen(q, k, relation, RANK, TERMS), s, float("-inf"))
    if hidden is not None:
        of_keys = tl.load(hidden + batch * keys.tokens + number(k, keys))
        s = tl.where((of_keys == 0)[None, :], s, float("-inf"))
    return s


@triton.jit
def mixed(x):
    """MurmurHash3's 32-bit finaliser, as in `windeye.kernels.softmax.dropout`."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def kept(q, k, queries, keys, plane, dropout):
    """[queries, keys]: which pairs survive; a hash of the seed, the plane, the query and the key decides."""
    of_plane = mixed(tl.load(dropout.seed).to(tl.uint32) + plane.to(tl.uint32) * 0x9E3779B9)
    of_query = mixed(of_plane + number(q, queries).to(tl.uint32) * 0x9E3779B9)
    of_key = number(k, keys).to(tl.uint32) * 0x85EBCA6B
    return mixed(of_query[:, None] ^ of_key[None, :]) >= dropout.threshold
