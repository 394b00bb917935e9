"""Windows with Swin's table and its nine regions, one query at a time."""

import torch

from nn.mixers.loops import every_query, project
from windeye.nn.mixers import WindowSpec

VARIANTS = [
    WindowSpec(),
    WindowSpec(4, shift=2),
    WindowSpec(4, shift=2, pad_input=True),
    WindowSpec((3, 5), shift=(1, 0), qkv_bias=False),
    WindowSpec((2, 5), shift=(1, 3), pad_input=True, bias_table=False),
]


def heads(layer, x):
    _, height, width, _ = x.shape
    side = min(height, width)
    (rows, columns), (down, right) = layer.window, layer.shift
    if rows == columns and side <= rows:
        rows, columns, down, right = side, side, 0, 0
    if height <= rows:
        rows, down = height, 0
    if width <= columns:
        columns, right = width, 0
    if layer.pad_input:
        wide = x.new_zeros(x.shape[0], -(-height // rows) * rows, -(-width // columns) * columns, x.shape[3])
        wide[:, :height, :width] = x
        x = wide
    query, key, value = project(layer, x)
    places = [(y, z) for y in range(x.shape[1]) for z in range(x.shape[2])]

    def window(y, z):
        return (y - down) // rows, (z - right) // columns

    def seen(y, z):
        return [place for place in places if window(*place) == window(y, z)]

    def bias(h, at, place):
        if layer.bias_table is None:
            return torch.zeros(())
        return layer.bias_table[h, place[0] - at[0] + layer.window[0] - 1, place[1] - at[1] + layer.window[1] - 1]

    return every_query(query, key, value, seen, layer.head_dim**-0.5, bias)[:, :height, :width]
