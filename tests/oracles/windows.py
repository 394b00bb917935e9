"""Who sees whom, one query at a time: the rules of the gna, fna and freeswim specs spelled out over Python sets.

Nothing here is taken from the library except the names of its patterns and their fields.
"""

from fractions import Fraction
from functools import reduce
from itertools import product
from math import floor

import numpy as np


def stands_on(query, queries, keys, causal):
    """Key coordinate of a query: causal axes meet at their ends, others by scale, a query taken at its middle."""
    if causal:
        return keys - 1 - (queries - 1 - query)
    return floor(Fraction(2 * query + 1, 2) * Fraction(keys, queries))


def neighborhood(at, keys, window, stride=1, dilation=1, causal=False, boundary="clamp"):
    """Keys of the query that stands on key ``at``. An ``at`` before the first key sees nothing."""
    if at < 0:
        return set()
    members = [key for key in range(keys) if key % dilation == at % dilation]  # its dilation class
    own = members.index(at)  # everything below counts inside the class
    last = len(members) - 1
    groups = [list(range(first, first + stride)) for first in range(0, len(members), stride)]
    group = next(group for group in groups if own in group)
    leader = min(group[-1] if causal else group[stride // 2], last)
    if causal:
        chosen = [leader - back for back in range(window)]  # W keys up to the leader ...
        chosen = [place for place in chosen if place <= own]  # ... but never the future
    else:
        chosen = [leader - window // 2 + step for step in range(window)]  # even windows look further left
        if boundary == "clamp":
            while chosen[0] < 0:
                chosen = [place + 1 for place in chosen]
            while chosen[-1] > last:
                chosen = [place - 1 for place in chosen]
    if boundary == "wrap":
        chosen = [place % len(members) for place in chosen]
    return {members[place] for place in chosen if 0 <= place <= last}


def sliding(at, keys, window, causal=True):
    """``window`` keys counting the query: all behind it, or half of them behind it; cut off at the ends."""
    chosen = set(range(at - window + 1, at + 1)) if causal else {at - window // 2 + step for step in range(window)}
    return {key for key in range(keys) if key in chosen}


def blocks(at, keys, size, shift=0):
    """Keys of the same block; a border lies before every key that is ``shift`` more than a multiple of ``size``."""
    number, numbers = 0, []
    for key in range(keys):
        number += key > 0 and (key - shift) % size == 0
        numbers.append(number)
    return {key for key in range(keys) if numbers[key] == numbers[at]}


def halo(at, keys, block, around):
    """Keys that lie at most ``around`` away from some key of the own block."""
    own = [key for key in range(keys + block) if key // block == at // block]
    return {key for key in range(keys) if any(abs(key - member) <= around for member in own)}


def tile_window(at, keys, tile, tiles):
    """Keys of ``tiles`` whole tiles around the own tile, pushed inside; even numbers look one tile further left."""
    last = max(key // tile for key in range(keys))
    chosen = [at // tile - tiles // 2 + step for step in range(tiles)]
    while chosen[0] < 0:
        chosen = [number + 1 for number in chosen]
    while chosen[-1] > last:
        chosen = [number - 1 for number in chosen]
    return {key for key in range(keys) if key // tile in chosen}


def inward(at, keys, train):
    """Window of twice the half training size and the query itself, pushed inside; whole axis if it does not fit."""
    half = train // 2
    if train == -1 or 2 * half + 1 > keys:
        return set(range(keys))
    centre = min(max(at, half), keys - 1 - half)
    return {key for key in range(keys) if abs(key - centre) <= half}


def documents(at, lengths):
    """Keys of the same document."""
    names = [name for name, length in enumerate(lengths) for _ in range(length)]
    return {key for key, name in enumerate(names) if name == names[at]}


def of_axis(pattern, axis, query, queries, keys):
    """Keys that one query sees along one axis, for patterns that are products over axes."""

    def per_axis(name):
        value = getattr(pattern, name)
        return value[axis] if isinstance(value, tuple) else value

    kind = type(pattern).__name__
    scaled = stands_on(query, queries, keys, causal=False)
    ended = stands_on(query, queries, keys, causal=True)
    if kind == "Full":
        return set(range(keys))
    if kind == "Neighborhood":
        window, stride, dilation = per_axis("kernel_size"), per_axis("stride"), per_axis("dilation")
        causal = per_axis("is_causal")
        window = keys // dilation if window == -1 else window
        return neighborhood(ended if causal else scaled, keys, window, stride, dilation, causal, pattern.boundary)
    if kind == "Sliding":
        return sliding(ended, keys, pattern.window, pattern.is_causal)
    if kind == "Blocks":
        return blocks(scaled, keys, per_axis("size"), per_axis("shift"))
    if kind == "Halo":
        return halo(scaled, keys, per_axis("block"), per_axis("halo"))
    if kind == "TileWindow":
        return tile_window(scaled, keys, per_axis("tile"), per_axis("tiles"))
    if kind == "Inward":
        return inward(scaled, keys, per_axis("train_shape"))
    if kind == "Documents":
        return documents(query, pattern.lengths)
    if kind == "Sinks":
        return {key for key in range(keys) if key < pattern.n and key <= ended}
    if kind == "Prefix":
        return {key for key in range(keys) if key < pattern.n}
    raise TypeError(f"no oracle for {kind}")


def relation(pattern, grid, grid_kv=None):
    """The dense relation, bool [queries, keys], over row-major tokens."""
    grid_kv = grid_kv or grid
    kind = type(pattern).__name__
    if kind in ("Both", "Either"):
        parts = [relation(member, grid, grid_kv) for member in pattern.members]
        return reduce(np.logical_and if kind == "Both" else np.logical_or, parts)
    queries, keys = list(product(*map(range, grid))), list(product(*map(range, grid_kv)))
    if kind == "Causal":  # tuples compare as row-major order does
        where = [tuple(k - 1 - (q - 1 - c) for c, q, k in zip(at, grid, grid_kv, strict=True)) for at in queries]
        return np.array([[min(at) >= 0 and key <= at for key in keys] for at in where])
    axes = [
        [of_axis(pattern, axis, query, q, k) for query in range(q)]
        for axis, (q, k) in enumerate(zip(grid, grid_kv, strict=True))
    ]
    return np.array([[all(axes[a][at[a]] >= {key[a]} for a in range(len(grid))) for key in keys] for at in queries])


def as_mask(rows, keys):
    """Sets of keys, one per query, as a dense relation."""
    return np.array([[key in row for key in range(keys)] for row in rows]).reshape(len(rows), keys)
