"""Keys of a map made smaller by a convolution written as sums, one query at a time."""

import torch

from nn.mixers.loops import every_query
from windeye.nn.mixers import SpatialReductionSpec

VARIANTS = [SpatialReductionSpec(), SpatialReductionSpec(1), SpatialReductionSpec(4, qkv_bias=False)]


def linear(layer, x):
    out = x @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def reduced(layer, x):
    if layer.ratio == 1:
        return x
    batch, height, width, dim = x.shape
    r = layer.ratio
    small = torch.zeros(batch, -(-height // r), -(-width // r), dim, dtype=x.dtype)
    for y in range(height):
        for z in range(width):
            cell = torch.zeros_like(small)
            cell[:, y // r, z // r] = x[:, y, z] @ layer.reduce.weight[:, :, y % r, z % r].T
            small = small + cell
    small = small + layer.reduce.bias
    small = small - small.mean(-1, keepdim=True)
    small = small / (small.square().mean(-1, keepdim=True) + layer.norm.eps).sqrt()
    return small * layer.norm.weight + layer.norm.bias


def heads(layer, x):
    small = reduced(layer, x)
    query = linear(layer.query, x).unflatten(-1, (layer.heads, -1))
    key, value = (part.unflatten(-1, (layer.heads, -1)) for part in linear(layer.key_value, small).chunk(2, dim=-1))
    everything = [(y, z) for y in range(small.shape[1]) for z in range(small.shape[2])]
    return every_query(query, key, value, lambda *_: everything, layer.head_dim**-0.5)
