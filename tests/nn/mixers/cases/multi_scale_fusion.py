"""Windows, sums over positions and their fusion, one query at a time; other sizes by tents written out."""

from math import ceil, sqrt

import torch

from nn.mixers.cases import window as windows
from nn.mixers.loops import every_query
from windeye.nn.mixers import MultiScaleFusionSpec

VARIANTS = [
    MultiScaleFusionSpec(),
    MultiScaleFusionSpec((15, 13), 0.25, window=4, shift=1, position="embed", bias_table=False),
    MultiScaleFusionSpec(7, 1.0, window=3, position="none", global_norm=False, expansion=1.5),
    MultiScaleFusionSpec((3, 40), 0.125, init="trunc", qkv_bias=False),
    MultiScaleFusionSpec(7, 0.5, window=4, fuse_window=4),
    MultiScaleFusionSpec((5, 6), 0.25, window=4, fuse_window=2, position="none"),
]


def linear(layer, x):
    out = x @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def norm(layer, x):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / sqrt(2)))


def tent(few, many, wide):
    """Rows of weights with which ``few`` places read ``many`` tokens; ``wide`` spreads tents over all of them."""
    rows = torch.zeros(few, many, dtype=torch.float64)
    reach = max(many / few, 1.0) if wide else 1.0
    for i in range(few):
        place = (i + 0.5) * many / few - 0.5
        if not wide:
            place = min(max(place, 0.0), many - 1.0)
        for j in range(many):
            rows[i, j] = max(0.0, 1 - abs(place - j) / reach)
    return rows / rows.sum(1, keepdim=True)


def resized(x, size, wide):
    down, across = (tent(n, m, wide) for n, m in zip(size, x.shape[1:3], strict=True))
    return torch.einsum("ay,bx,nyxc->nabc", down, across, x)


def global_tokens(layer, x):
    height, width = x.shape[1:3]
    rows, columns = layer.shares
    grid = (ceil(rows * height), ceil(columns * width))
    seen = resized(x if layer.norm is None else norm(layer.norm, x), layer.size, True)
    few = layer.weight.shape[:2]
    out = torch.zeros(len(x), *few, x.shape[-1], dtype=x.dtype)
    for a in range(few[0]):
        for b in range(few[1]):
            here = (layer.weight[a, b][None, ..., None] * seen).sum((1, 2)) + layer.bias[a, b]
            mask = torch.zeros(*few, 1, dtype=x.dtype)
            mask[a, b] = 1.0
            out = out + mask * here[:, None, None]
    if layer.table is not None:
        out = out + layer.table
    out = resized(out, grid, True)
    return out + resized(x, grid, False) if layer.position == "bilinear" else out


def local(layer, x):
    near = x + linear(layer.window.proj, windows.heads(layer.window, norm(layer.norm1, x)).flatten(-2))
    return near + linear(layer.feed_forward.fc2, gelu(linear(layer.feed_forward.fc1, norm(layer.norm2, near))))


def heads(layer, x):
    tokens = global_tokens(layer.tokens, x)
    query = linear(layer.query, local(layer, x)).unflatten(-1, (layer.heads, -1))
    key, value = (t.unflatten(-1, (layer.heads, -1)) for t in linear(layer.key_value, tokens).chunk(2, dim=-1))
    places = [(a, b) for a in range(tokens.shape[1]) for b in range(tokens.shape[2])]
    side, (down, across) = layer.fuse_window, layer.tokens.shares

    def seen(y, z):
        if side is None:
            return places
        tall, wide = down * side, across * side
        return [(a, b) for a, b in places if (a // tall, b // wide) == (y // side, z // side)]

    return every_query(query, key, value, seen, layer.head_dim**-0.5)
