"""Selection of keys and attention over what was selected, one query at a time, with nothing but the definitions."""

import torch

from oracles.attention import attention


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
    heads, kv_heads = query.shape[2], key.shape[2]
    outs, lses = [], []
    for b in range(query.shape[0]):
        for h in range(heads):
            row = table[b % table.shape[0], h // (heads // table.shape[1])]
            mask = alive(row, query.shape[1])
            spread = None
            if bias is not None:
                own = bias[b, h // (heads // bias.shape[1])].double()
                spread = own.expand(1, query.shape[1], -1)
            kv = slice(h // (heads // kv_heads), h // (heads // kv_heads) + 1)
            out, lse = attention(
                query[b : b + 1, :, h : h + 1], key[b : b + 1, :, kv], value[b : b + 1, :, kv], mask,
                scale=scale, bias=spread, hidden=None if hidden is None else hidden[b : b + 1],
            )  # fmt: skip
            outs.append(out[0, :, 0])
            lses.append(lse[0, :, 0])
    shape = (query.shape[0], heads)
    out = torch.stack(outs).unflatten(0, shape).transpose(1, 2)
    return out, torch.stack(lses).unflatten(0, shape).transpose(1, 2)
