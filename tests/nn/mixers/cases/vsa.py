"""Moved and stretched windows, one window of one head at a time; a sample is a sum over the map with tent weights."""

from itertools import product

import torch

from nn.mixers.loops import project
from windeye.nn.mixers import VSASpec

VARIANTS = [
    VSASpec(),
    VSASpec(4, hide_padding=False),
    VSASpec(3, hide_padding=False, offset_divisor="whole", zero_init=False),
    VSASpec((2, 5), padding="symmetric", swap_divisors=True, qkv_bias=False),
    VSASpec(1, hide_padding=False, bias_table=False),
]


def tents(places, side):
    """How much of each of ``side`` tokens is in what is read at each place: one less the distance, if it is below."""
    return (1 - (places[..., None] - torch.arange(side)).abs()).clamp(min=0)


def around(centre, scale, size, offset):
    """Places of the cells of a moved and stretched window, one row per batch entry."""
    cells = torch.arange(size) - (size - 1) / 2
    return centre + (1 + scale)[:, None] * cells + offset[:, None]


def table(layer, head):
    """The bias of every pair of cells."""
    (rows, columns), cells = layer.window, list(product(*map(range, layer.window)))
    if layer.bias_table is None:
        return torch.zeros(len(cells), len(cells), dtype=torch.float64)
    return torch.stack([
        torch.stack([layer.bias_table[head, p - i + rows - 1, q - j + columns - 1] for p, q in cells]) for i, j in cells
    ])  # fmt: skip


def heads(layer, x):
    batch, height, width, _ = x.shape
    rows, columns = layer.window
    down, across = -(-height // rows), -(-width // columns)
    tall, broad = down * rows, across * columns
    symmetric = layer.padding == "symmetric"
    top, left = ((tall - height) // 2, (broad - width) // 2) if symmetric else (0, 0)
    by_y, by_x = down, across
    if layer.offset_divisor == "whole":
        by_y, by_x = max(height // rows, 1), max(width // columns, 1)
    if layer.swap_divisors:
        by_x, by_y = by_y, by_x

    def padded(t):
        whole = t.new_zeros(batch, tall, broad, *t.shape[3:])
        whole[:, top : top + height, left : left + width] = t
        return whole

    query, key, value = map(padded, project(layer, x))
    there = padded(torch.ones(batch, height, width, 1, dtype=x.dtype))
    whole, out = padded(x), torch.zeros_like(query)
    tables = [table(layer, h) for h in range(layer.heads)]
    for r, c, h in product(range(down), range(across), range(layer.heads)):
        here = (slice(None), slice(r * rows, (r + 1) * rows), slice(c * columns, (c + 1) * columns))
        mean = whole[here].mean(dim=(1, 2))
        mean = torch.where(mean > 0, mean, 0.01 * mean)
        numbers = mean @ layer.regress.weight[:, :, 0, 0].T + layer.regress.bias
        ox, oy, sx, sy = numbers[:, 4 * h : 4 * h + 4].T
        y = around(r * rows + (rows - 1) / 2, sy, rows, oy / by_y * (tall - 1) / 2)
        z = around(c * columns + (columns - 1) / 2, sx, columns, ox / by_x * (broad - 1) / 2)
        weights = torch.einsum("biy,bjz->bijyz", tents(y, tall), tents(z, broad)).flatten(1, 2).flatten(2)
        keys, values, share = (weights @ t.flatten(1, 2) for t in (key[..., h, :], value[..., h, :], there))
        logits = query[here][..., h, :].flatten(1, 2) @ keys.transpose(1, 2) * layer.scale + tables[h]
        if layer.hide_padding:
            logits = logits + 30 * share.transpose(1, 2)
        out[here][..., h, :] = (logits.softmax(-1) @ values).unflatten(1, layer.window)
    return out[:, top : top + height, left : left + width]
