"""Column statistics: a box of keys sums the weights that it gets from the boxes of queries it meets, from their
normalisers. One writer each."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import coordinates, is_token, number, rows
from windeye.kernels.statistics.triton.linear import distances, reach
from windeye.kernels.statistics.triton.pairs import HIDDEN, LOG2E, logits, not_hidden, only


@triton.jit
def norms(lse, row, there):
    """Normalisers in units of log 2. A row that saw nothing, or that is none, gets one so large that its weights are
    zero."""
    norm = tl.load(lse + row, mask=there, other=float("-inf"))
    return tl.where(norm == float("-inf"), -HIDDEN, norm * LOG2E)


@triton.jit
def column_sums(
    query, key, logits_, visits, lse, counted, low, high, sums, heads, group,
    head_dim: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr,
    TERMS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over queries that count at distances ``low`` to ``high``, of one box of keys, one head and batch entry."""
    box = tl.program_id(0) % visits.keys.boxes
    plane = tl.program_id(0) // visits.keys.boxes
    head, batch = (plane % heads).to(tl.int64), (plane // heads).to(tl.int64)
    queries, keys = visits.queries, visits.keys
    every = coordinates(keys, box, KEYS)
    of_keys = not_hidden(every, keys, batch, logits_)
    k_rows = rows(key, batch, head // group, of_keys, head_dim, WIDTH)
    acc = tl.zeros([k_rows.shape[0]], WIDE)
    entry = box + batch * visits.apart * keys.boxes
    for meeting in range(tl.load(visits.of_keys.begin + entry), tl.load(visits.of_keys.begin + entry + 1)):
        at = coordinates(queries, tl.load(visits.of_keys.other + meeting), QUERIES)
        near, far = reach(at, of_keys, queries, keys, logits_.offset)
        if (far >= low) & (near <= high):
            row = batch * queries.tokens + number(at, queries)
            if counted is not None:
                at = only(at, tl.load(counted + row) != 0)
            q_rows = rows(query, batch, head, at, head_dim, WIDTH)
            s, _bend = logits(
                q_rows, k_rows, at, of_keys, batch, head, logits_, visits, RANK, TERMS, True, WIDE, PRECISION
            )
            distance = distances(at, of_keys, queries, keys, logits_.offset)
            s = tl.where((distance >= low) & (distance <= high), s, HIDDEN)
            acc += tl.sum(tl.exp2(s - norms(lse, row * heads + head, is_token(at))[:, None]), 0)
    tl.store(sums + (batch * keys.tokens + number(every, keys)) * heads + head, acc, mask=is_token(every))
