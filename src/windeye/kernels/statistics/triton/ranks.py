"""The heaviest keys of each query, kept without order."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.statistics.triton.pairs import HIDDEN

NONE = tl.constexpr(1 << 30)
"""From here on, numbers of places that no key has taken."""


@triton.jit
def unranked(QUERIES: tl.constexpr, TOP: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    """No key yet; places beyond ``TOP`` are never taken."""
    place = tl.arange(0, WIDTH)[None, :]
    score = tl.where(place < TOP, tl.full([QUERIES, WIDTH], HIDDEN, WIDE), float("inf"))
    return score, tl.zeros([QUERIES, WIDTH], tl.int32) + NONE + place


@triton.jit
def next_of(score, key, s, token):
    """Each query's best pair of the box, the place it would take, and whether it may: of equal ones the first key."""
    high = tl.max(s, 1)
    at = tl.min(tl.where(s == high[:, None], token[None, :], 2147483647), 1)
    low = tl.min(score, 1)
    worst = tl.max(tl.where(score == low[:, None], key, -1), 1)
    enters = (high > HIDDEN) & ((high > low) | ((high == low) & (at < worst)))
    return high, at, worst, enters


@triton.jit
def rank(score, key, s, token):
    """What is kept after one more box of keys; rounds end when no query has a better one."""
    high, at, worst, enters = next_of(score, key, s, token)
    while tl.max(enters.to(tl.int32), 0) > 0:
        given_up = (key == worst[:, None]) & enters[:, None]
        score = tl.where(given_up, high[:, None], score)
        key = tl.where(given_up, at[:, None], key)
        s = tl.where((token[None, :] == at[:, None]) & enters[:, None], HIDDEN, s)
        high, at, worst, enters = next_of(score, key, s, token)
    return score, key
