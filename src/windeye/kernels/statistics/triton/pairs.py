"""What all kernels do with a box of queries and a box of keys that meet: the logits of their pairs."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from windeye.kernels.softmax.triton import boxes
from windeye.kernels.softmax.triton.boxes import across, down, is_token, number
from windeye.kernels.softmax.triton.pairs import related

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
HIDDEN = tl.constexpr(-1e30)
"""The logit of a pair that is not seen: finite, so that zero weights can be multiplied by it."""


@triton.jit
def value(number_, WIDE: tl.constexpr):
    """A number in full precision, [1, 1]."""
    return tl.zeros([1, 1], WIDE) + number_.high + number_.low


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """``a @ b``, summed in float32, or in float64 where "double"."""
    if PRECISION == "double":
        return tl.dot(a, b, out_dtype=tl.float64)
    else:
        return boxes.product(a, b, PRECISION)


@triton.jit
def tanh(x):
    """A continued fraction near zero, where a quotient of exponentials has lost its digits."""
    square = x * x
    over = 34459425.0 + square * (4729725.0 + square * (135135.0 + square * (990.0 + square)))
    under = 34459425.0 + square * (16216200.0 + square * (945945.0 + square * (13860.0 + square * 45.0)))
    shrunk = tl.exp2(tl.abs(x) * (-2.0 * LOG2E))
    far = (1.0 - shrunk) / (1.0 + shrunk)
    return tl.where(square < 0.4, x * over / under, tl.where(x < 0.0, -far, far))


@triton.jit
def only(at, wanted):
    """Coordinates of some tokens of a box; the others are none."""
    return tl.where(wanted, at[0], -1), at[1], at[2]


@triton.jit
def not_hidden(at, keys, batch, logits_):
    """Coordinates of the keys that no padding hides."""
    if logits_.hidden is not None:
        at = only(at, tl.load(logits_.hidden + batch * keys.tokens + number(at, keys)) == 0)
    return at


@triton.jit
def shown(q, k, batch, visits, RANK: tl.constexpr, CHECKS: tl.constexpr):
    """[queries, keys]: whether queries see keys, by the tables of a pattern, or by runs of keys where ``RANK`` is 0."""
    there = is_token(q)[:, None] & is_token(k)[None, :]
    if RANK > 0:
        found = related(down(q), across(k), visits.relation, RANK, CHECKS)
    else:
        found = there & (k[2] < 0)[None, :]  # nothing, in the shape of all pairs
        first = visits.relation.start + batch * visits.each + tl.maximum(q[2], 0)
        beyond = visits.relation.span + batch * visits.each + tl.maximum(q[2], 0)
        for run in range(tl.load(visits.relation.place)):
            begin = tl.load(first + run * visits.queries.tokens)[:, None]
            end = tl.load(beyond + run * visits.queries.tokens)[:, None]
            found = found | ((k[2][None, :] >= begin) & (k[2][None, :] < end))
    return found & there


@triton.jit
def logits(
    q_rows, k_rows, q, k, batch, head, logits_, visits,
    RANK: tl.constexpr, CHECKS: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[queries, keys] in units of log 2, and the derivative of the cap."""
    s = product(q_rows, tl.trans(k_rows), PRECISION) * value(logits_.factor, WIDE)
    bend = s
    if logits_.cap is not None:
        bent = tanh(s)
        s = value(logits_.cap, WIDE) * bent
        bend = 1.0 - bent * bent
    if logits_.bias is not None:
        bias = logits_.bias.base + batch * logits_.bias.batch + head * logits_.bias.head
        s += tl.load(bias + number(k, visits.keys))[None, :] * LOG2E
    if MASKED:
        s = tl.where(shown(q, k, batch, visits, RANK, CHECKS), s, HIDDEN)
    elif logits_.hidden is not None:
        s = tl.where(is_token(k)[None, :], s, HIDDEN)
    return s, bend
