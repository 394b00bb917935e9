"""Statistics of attention maps from the maps themselves, one entry at a time, in float64."""

import math
from itertools import product

import torch


def weights(query, key, mask, *, scale, softcap=None, sinks=None, bias=None):
    """``A[b, h, t, s]`` with rows of zeros where nothing is seen; ``mask[b, h, t, s]``."""
    batch, queries, heads, _ = query.shape
    keys, group = key.shape[1], heads // key.shape[2]
    maps = torch.zeros(batch, heads, queries, keys, dtype=torch.float64)
    for b, h, t in product(range(batch), range(heads), range(queries)):
        logits = {}
        for s in range(keys):
            if not mask[b, h, t, s]:
                continue
            x = scale * float(query[b, t, h].double() @ key[b, s, h // group].double())
            x = softcap * math.tanh(x / softcap) if softcap else x
            logits[s] = x + (float(bias[b, h, t, s]) if bias is not None else 0.0)
        if not logits:
            continue
        total = math.fsum(math.exp(x) for x in logits.values())
        total += math.exp(float(sinks[h])) if sinks is not None else 0.0
        for s, x in logits.items():
            maps[b, h, t, s] = math.exp(x) / total
    return maps


def row(maps, function):
    """``function(weights of a row as {key: weight}, query)`` for every row: [batch, queries, heads]."""
    batch, heads, queries, keys = maps.shape
    out = torch.zeros(batch, queries, heads, dtype=torch.float64)
    for b, h, t in product(range(batch), range(heads), range(queries)):
        out[b, t, h] = function({s: float(maps[b, h, t, s]) for s in range(keys)}, t)
    return out


def entropy(maps):
    return row(maps, lambda a, _: -math.fsum(x * math.log(x) for x in a.values() if x > 0))


def distance(maps, phi, offset):
    return row(maps, lambda a, t: math.fsum(x * phi(t + offset - s) for s, x in a.items()))


def future_influence(maps, low, high, offset, counted):
    """Mean over the counted queries so far behind: [batch, keys, heads]."""
    batch, heads, queries, keys = maps.shape
    out = torch.zeros(batch, keys, heads, dtype=torch.float64)
    for b, h, s in product(range(batch), range(heads), range(keys)):
        rows = [t for t in range(queries) if low <= t + offset - s <= high and counted[b, t]]
        if rows:
            out[b, s, h] = math.fsum(float(maps[b, h, t, s]) for t in rows) / len(rows)
    return out
