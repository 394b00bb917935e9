"""Attention one query at a time, in float64, so that nothing but the definition is in it."""

from itertools import product

import torch


def attention(query, key, value, mask, *, scale, bias=None, hidden=None):
    """``(out, lse)`` of flat tokens ``[batch, tokens, heads, dim]``; ``mask[q, k]`` says who sees whom.

    ``bias[h, q, k]`` is added to the scaled logit, ``hidden[b, k]`` hides a key. Differentiable.
    """
    query, key, value = query.double(), key.double(), value.double()
    batch, tokens, heads, _ = query.shape
    group = heads // key.shape[2]
    out = {}
    lse = {}
    for b, q, h in product(range(batch), range(tokens), range(heads)):
        seen = [k for k in range(key.shape[1]) if mask[q, k] and not (hidden is not None and hidden[b, k])]
        if not seen:
            out[b, q, h] = torch.zeros(value.shape[3], dtype=torch.float64)
            lse[b, q, h] = torch.tensor(-torch.inf, dtype=torch.float64)
            continue
        logits = scale * (key[b, seen, h // group] @ query[b, q, h])
        if bias is not None:
            logits = logits + bias[h, q, seen]
        lse[b, q, h] = torch.logsumexp(logits, dim=0)
        out[b, q, h] = torch.softmax(logits, dim=0) @ value[b, seen, h // group]
    places = list(product(range(batch), range(tokens), range(heads)))
    return (
        torch.stack([out[p] for p in places]).reshape(batch, tokens, heads, -1),
        torch.stack([lse[p] for p in places]).reshape(batch, tokens, heads),
    )


def attention_per_head(query, key, value, masks, *, scale, bias=None, hidden=None):
    """``(out, lse)`` with masks [batch or 1, heads, queries, keys] and a bias [batch, heads, keys]."""
    heads, kv_heads = query.shape[2], key.shape[2]
    outs, lses = [], []
    for b, h in product(range(query.shape[0]), range(heads)):
        mask = masks[b % masks.shape[0], h // (heads // masks.shape[1])]
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


def spread_bias(table, grid, dilation):
    """``bias[h, q, k]`` of a relative table: entry ``(k - q) / dilation + reach`` per axis; zero where it has none."""
    coords = list(product(*(range(n) for n in grid)))
    spread = torch.zeros(table.shape[0], len(coords), len(coords), dtype=torch.float64)
    reach = [n // 2 for n in table.shape[1:]]
    for (i, a), (j, b) in product(enumerate(coords), repeat=2):
        steps = [(y - x) for x, y in zip(a, b, strict=True)]
        if any(s % d for s, d in zip(steps, dilation, strict=True)):
            continue
        place = [s // d + r for s, d, r in zip(steps, dilation, reach, strict=True)]
        if all(0 <= p < n for p, n in zip(place, table.shape[1:], strict=True)):
            spread[(slice(None), i, j)] = table[(slice(None), *place)]
    return spread
