"""What a box of queries and a box of keys are to each other: logits, what is seen, and what is dropped."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton.boxes import is_token, number, product

UNSEEN = tl.constexpr(float("-inf"))


@triton.jit
def within(here, there, relation, table, CHECK: tl.constexpr):
    """Whether one axis of one term relates coordinates of the one side, of tokens, to those of the other, of any.
    ``CHECK`` holds the bits `WRAPS` and `STEPS` of the plan."""
    wraps: tl.constexpr = CHECK % 2 == 1
    steps: tl.constexpr = CHECK // 2 == 1
    entry = tl.load(relation.place + 3 * table) + tl.maximum(here, 0)
    distance = there - tl.load(relation.start + entry)
    if wraps:
        length = tl.load(relation.place + 3 * table + 1)
        distance = tl.where(distance < 0, distance + length, distance)
    # What lies before the interval becomes a number beyond any span.
    inside = distance.to(tl.uint32) < tl.load(relation.span + entry).to(tl.uint32)
    if wraps:
        inside = inside & (there < length)
    if steps:
        inside = inside & (distance % tl.load(relation.place + 3 * table + 2) == 0)
    return inside


@triton.jit
def related_by(here, there, relation, term: tl.constexpr, RANK: tl.constexpr, CHECKS: tl.constexpr):
    """Which pairs one term relates."""
    inside = within(here[2], there[2], relation, 3 * term + 2, CHECKS[3 * term + 2])
    if RANK > 1:
        inside = inside & within(here[1], there[1], relation, 3 * term + 1, CHECKS[3 * term + 1])
    if RANK > 2:
        inside = inside & within(here[0], there[0], relation, 3 * term, CHECKS[3 * term])
    return inside


@triton.jit
def related(here, there, relation, RANK: tl.constexpr, CHECKS: tl.constexpr):
    """Of pairs: whether the tables of a pattern relate them. Places of ``there`` beyond the end are related to nothing;
    of ``here`` they stand for the first token."""
    found = related_by(here, there, relation, 0, RANK, CHECKS)
    for term in tl.static_range(1, len(CHECKS) // 3):
        found = found | related_by(here, there, relation, term, RANK, CHECKS)
    return found


@triton.jit
def seen(here, there, tokens, relation, RANK: tl.constexpr, CHECKS: tl.constexpr):
    """Of pairs: whether the tables of a pattern relate them; without a pattern, all that have a token across, of which
    ``tokens`` are the coordinates."""
    if relation is None:
        return is_token(tokens)[None, :]
    else:
        return related(here, there, relation, RANK, CHECKS)


@triton.jit
def place(at, bias):
    """Where tokens stand in a relative table, up to the centre: of a box that is the sum of its origin's and of its
    lanes' places, which lie whole units apart."""
    return at[0] // bias.unit0 * bias.stride0 + at[1] // bias.unit1 * bias.stride1 + at[2] // bias.unit2


@triton.jit
def biases(bias, head, q_place, k_place):
    """Of pairs: entries of the table, from places in the shape of their sides."""
    return tl.load(bias.table + head * bias.size + bias.centre + k_place - q_place)


@triton.jit
def is_shown(hidden, batch, keys, at):
    """Which keys no padding hides."""
    return tl.load(hidden + batch * keys.tokens + number(at, keys)) == 0


@triton.jit
def logits(down, across, scale_log2, RAW: tl.constexpr, PRECISION: tl.constexpr):
    """Of pairs, from the rows of the tokens down a tile and across it, in units of log 2; with ``RAW`` dot products
    that are yet to be scaled."""
    s = product(down, tl.trans(across), PRECISION)
    return s if RAW else s * scale_log2


@triton.jit
def shown_logits(
    q_rows, k_rows, q, k, there, batch, head, start, q_place, k_place, hidden, bias, keys, relation, scale_log2,
    RANK: tl.constexpr, CHECKS: tl.constexpr, WHOLE: tl.constexpr, RAW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys] of them, with biases, ``-inf`` where a key is not seen; ``start`` is the origin of the box of
    keys, and ``there`` are the coordinates of its tokens."""
    s = logits(q_rows, k_rows, scale_log2, RAW, PRECISION)
    if bias is not None:
        s += biases(bias, head, q_place[:, None], (place(start, bias) + k_place)[None, :])
    if hidden is not None:
        s = tl.where(is_shown(hidden, batch, keys, there)[None, :], s, UNSEEN)
    if not WHOLE:
        s = tl.where(seen(q, k, there, relation, RANK, CHECKS), s, UNSEEN)
    return s


@triton.jit
def powers(s, less, scale_log2, RAW: tl.constexpr):
    """``2^(s - less)`` of logits as they are kept; the scale costs nothing here, for it goes into one instruction with
    the difference."""
    return tl.exp2(s * scale_log2 - less) if RAW else tl.exp2(s - less)


@triton.jit
def mixed(x):
    """MurmurHash3's 32-bit finaliser, as in `windeye.kernels.softmax.dropout`."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def kept(q, k, queries, keys, plane, dropout):
    """Of pairs: which survive; a hash of the seed, the plane, the query and the key decides."""
    of_plane = mixed(tl.load(dropout.seed).to(tl.uint32) + plane.to(tl.uint32) * 0x9E3779B9)
    of_query = mixed(of_plane + number(q, queries).to(tl.uint32) * 0x9E3779B9)
    of_key = number(k, keys).to(tl.uint32) * 0x85EBCA6B
    return mixed(of_query ^ of_key) >= dropout.threshold
