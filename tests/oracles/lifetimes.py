"""Selection of keys and attention over what was selected, one query at a time, with nothing but the definitions."""

import torch

from oracles.attention import attention_per_head


def best(candidates, score, w):
    """The ``w`` candidates of largest score; of equal scores the later key."""
    return set(sorted(candidates, key=lambda j: (float(score[j]), j))[-w:])


def kept(score, w, *, hidden=None, length=None, window=None, before=False, selection="causal"):
    """``mask[i, j]`` for one row of scores. ``before``: the window is applied before the selection, not after it."""
    n = len(score)
    length = n if length is None else length
    shown = [j for j in range(length) if hidden is None or not hidden[j]]
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(length):
        past = [j for j in shown if j <= i]
        near = past if window is None else [j for j in past if j > i - window]
        if selection == "global":
            chosen = best(shown, score, w) & set(near)
        elif selection == "relu":
            chosen = {j for j in near if score[j] > 0}
        else:
            chosen = best(near if before else past, score, w) & set(near)
        mask[i, sorted(chosen)] = True
    return mask


def smoothed(mask, block):
    """Blocks of keys of which a row keeps more than half, and nothing of the future."""
    n = mask.shape[0]
    out = torch.zeros_like(mask)
    for i in range(n):
        for first in range(0, n, block):
            keys = range(first, min(first + block, n))
            if sum(bool(mask[i, j]) for j in keys) * 2 > len(keys):
                out[i, [j for j in keys if j <= i]] = True
    return out


def alive(table, queries):
    """``mask[i, j]`` of one row of expiries, for the last ``queries`` positions."""
    n = len(table)
    rows = [[j <= i < int(table[j]) for j in range(n)] for i in range(n - queries, n)]
    return torch.tensor(rows, dtype=torch.bool).reshape(queries, n)


def lifetime_attention(query, key, value, table, *, scale, bias=None, hidden=None):
    """``(out, lse)`` with a table [batch or 1, heads, keys] and a bias [batch, heads, keys]; heads may be shared."""
    masks = torch.stack([torch.stack([alive(row, query.shape[1]) for row in rows]) for rows in table])
    return attention_per_head(query, key, value, masks, scale=scale, bias=bias, hidden=hidden)
