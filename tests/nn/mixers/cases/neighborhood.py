"""Neighbourhoods of NAT and DiNAT, small maps padded, one query at a time."""

from nn.mixers.loops import every_query, project
from oracles.windows import neighborhood
from windeye.nn.mixers import NeighborhoodSpec

VARIANTS = [
    NeighborhoodSpec(),
    NeighborhoodSpec(3, dilation=2),
    NeighborhoodSpec((3, 4), stride=(2, 1), bias_table=False),
    NeighborhoodSpec(5, dilation=(1, 3), qkv_bias=False),
]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def heads(layer, x):
    _, height, width, _ = x.shape
    pattern = layer.layer.pattern
    kernel, stride, dilation = pair(pattern.kernel_size), pair(pattern.stride), pair(pattern.dilation)
    tall, broad = (max(n, k * d) for n, k, d in zip((height, width), kernel, dilation, strict=True))
    wide = x.new_zeros(x.shape[0], tall, broad, x.shape[3])
    wide[:, :height, :width] = x
    layer.layer.heads = layer.heads
    query, key, value = project(layer.layer, wide)

    def axis(at, n, a):
        return sorted(neighborhood(at, n, kernel[a], stride[a], dilation[a]))

    def seen(y, z):
        return [(i, j) for i in axis(y, tall, 0) for j in axis(z, broad, 1)]

    bias = None
    if layer.layer.rpb is not None:

        def bias(h, at, place):
            steps = [(p // d - a // d) + k - 1 for p, a, k, d in zip(place, at, kernel, dilation, strict=True)]
            return layer.layer.rpb[(h, *steps)]

    return every_query(query, key, value, seen, layer.head_dim**-0.5, bias)[:, :height, :width]
