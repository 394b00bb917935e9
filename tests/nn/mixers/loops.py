"""Attention over maps one query at a time: what the cases of the mixers are written with."""

from itertools import product

import torch


def project(layer, x):
    """Query, key and value maps [batch, height, width, heads, head_dim] of a joint projection."""
    joint = x @ layer.qkv.weight.T
    if layer.qkv.bias is not None:
        joint = joint + layer.qkv.bias
    return [part.unflatten(-1, (layer.heads, -1)) for part in joint.split(joint.shape[-1] // 3, dim=-1)]


def every_query(query, key, value, seen, scale, bias=None):
    """``seen(y, x)`` are the keys' places on their map; ``bias(head, (y, x), place)`` is added to a logit."""
    out = torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    for y, x in product(range(query.shape[1]), range(query.shape[2])):
        rows, columns = (torch.tensor(index) for index in zip(*seen(y, x), strict=True))
        logits = scale * torch.einsum("bhd,bkhd->bhk", query[:, y, x], key[:, rows, columns])
        if bias is not None:
            heads = range(query.shape[3])
            extra = [torch.stack([bias(h, (y, x), place) for place in seen(y, x)]) for h in heads]
            logits = logits + torch.stack(extra)
        out[:, y, x] = torch.einsum("bhk,bkhd->bhd", logits.softmax(-1), value[:, rows, columns])
    return out
