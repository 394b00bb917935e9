"""Windows and their means, one query at a time."""

import torch

from nn.mixers.loops import every_query
from windeye.nn.mixers import HiLoSpec

VARIANTS = [
    HiLoSpec(),
    HiLoSpec(pad_input=True),
    HiLoSpec(3, 0.5, pad_input=True, qkv_bias=False),
    HiLoSpec(4, 0.5),
    HiLoSpec(3, 0.0),
    HiLoSpec(3, 1.0),
    HiLoSpec(1, 0.0),
]


def linear(layer, x, parts):
    out = x @ layer.weight.T
    out = out if layer.bias is None else out + layer.bias
    return out.chunk(parts, dim=-1)


def heads(layer, x):
    batch, height, width, dim = x.shape
    s = layer.window
    tall, wide = -(-height // s) * s, -(-width // s) * s
    whole = torch.zeros(batch, tall, wide, dim, dtype=x.dtype)
    whole[:, :height, :width] = x
    rows, columns = (tall, wide) if layer.pad_input else (height, width)
    scale = layer.head_dim**-0.5
    out = []
    if layer.high:
        split = (layer.high, layer.head_dim)
        query, key, value = (t.unflatten(-1, split) for t in linear(layer.hi_qkv, whole, 3))

        def window(y, z):
            return [
                (i, j) for i in range(rows) for j in range(columns) if (i // s, j // s) == (y // s, z // s)
            ]  # fmt: skip

        out.append(every_query(query, key, value, window, scale)[:, :height, :width])
    if layer.low:
        split = (layer.low, layer.head_dim)
        means = torch.zeros(batch, tall // s, wide // s, dim, dtype=x.dtype)
        for i in range(tall // s):
            for j in range(wide // s):
                cell = whole[:, i * s : min(i * s + s, rows), j * s : min(j * s + s, columns)]
                means[:, i, j] = cell.mean(dim=(1, 2))
        everything = [(i, j) for i in range(tall // s) for j in range(wide // s)]
        (query,) = (t.unflatten(-1, split) for t in linear(layer.lo_q, x, 1))
        key, value = (t.unflatten(-1, split) for t in linear(layer.lo_kv, means, 2))
        out.append(every_query(query, key, value, lambda *_: everything, scale))
    return torch.cat(out, dim=-2)
