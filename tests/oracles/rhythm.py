"""Attention maps written out in full, what is read off them by loops over pairs, and the rules of credit by sets."""

import math
import statistics
from itertools import pairwise

import torch


def maps(query, key, *, mask, softcap=None, bias=None, sink_logits=None):
    """Weights ``[layers, heads, queries, keys]`` of ``query [layers, heads, n, dim]`` and grouped ``key``, in float64.

    ``bias[layer, head, t, s]`` is added after the soft cap; ``sink_logits[layer, head]`` joins the denominator only.
    """
    layers, heads, n, dim = query.shape
    group = heads // key.shape[1]
    weights = torch.zeros(layers, heads, n, n, dtype=torch.float64)
    for layer in range(layers):
        for head in range(heads):
            scores = query[layer, head].double() @ key[layer, head // group].double().T / math.sqrt(dim)
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if bias is not None:
                scores = scores + bias[layer, head]
            for t in range(n):
                seen = [s for s in range(n) if mask[t, s]]
                if not seen:
                    continue
                powers = scores[t, seen].exp()
                rest = 0.0 if sink_logits is None else sink_logits[layer, head].exp()
                weights[layer, head, t, seen] = powers / (powers.sum() + rest)
    return weights


def windowed_distance(weights, rows, window):
    """WAAD of one map ``[n, n]`` at each of the rows."""
    return [math.fsum(float(weights[t, s]) * min(t - s, window) for s in range(t + 1)) for t in rows]


def future_influence(weights, rows, low, high):
    """FAI of one map at each of the rows: the mean weight that later rows of the response give it."""
    found = []
    for s in rows:
        later = [float(weights[t, s]) for t in rows if s + low <= t <= s + high]
        found.append(math.fsum(later) / len(later) if later else 0.0)
    return found


def span(weights, rows):
    """Mean backward distance of one map over the rows."""
    return math.fsum(float(weights[t, s]) * (t - s) for t in rows for s in range(t + 1)) / len(rows)


def deltas(waad):
    """Jumps of one response's WAAD to the next token."""
    return [abs(a - b) for a, b in pairwise(waad)] + [0.0]


def top_set(values, share):
    """The first ``ceil(share n)`` places in the order of falling values, earlier places first among equals."""
    count = math.ceil(round(share * len(values), 9))
    return set(sorted(range(len(values)), key=lambda t: (-values[t], t))[:count])


def dominated_and_introducers(waad, fai, share, reach):
    """``(D, I(D))`` of one response, with medians as thresholds."""
    delta = deltas(waad)
    calm, jump = statistics.median(waad), statistics.median(delta)
    dominated, introducers = set(), set()
    for t in top_set(fai, share):
        before = range(max(0, t - reach), t)
        if len(before) and waad[t] <= calm and max(delta[u] for u in before) >= jump:
            dominated.add(t)
            introducers.add(max(before, key=lambda u: (delta[u], u)))
    return dominated, introducers


def coupled(waad, fai, share, amplification, reach, transfer):
    """Factors of one response under the coupled rule."""
    dominated, introducers = dominated_and_introducers(waad, fai, share, reach)
    anchors = top_set(fai, share)
    gain = amplification - 1
    return [
        1
        + gain * (t in anchors - dominated)
        + (1 - transfer) * gain * (t in dominated)
        + transfer * gain * (t in introducers)
        for t in range(len(waad))
    ]
