"""Regions that keep regions, one query at a time."""

import torch

from nn.mixers.loops import every_query
from windeye.nn.mixers import BiLevelRoutingSpec

VARIANTS = [
    BiLevelRoutingSpec(),
    BiLevelRoutingSpec(3, 2, padding="input"),
    BiLevelRoutingSpec((2, 3), 2, padding="projected", local=3),
    BiLevelRoutingSpec(4, 3, local=None, qkv_bias=False),
    BiLevelRoutingSpec(3, 9, qk_dim=8),
    BiLevelRoutingSpec((2, 4), 3, qk_dim=8, soft=True, router=True),
    BiLevelRoutingSpec(3, 2, soft=True, padding="input"),
    BiLevelRoutingSpec(1, 1),
]


def projected(layer, x):
    out = x @ layer.qkv.weight.T
    out = out if layer.qkv.bias is None else out + layer.qkv.bias
    return out.split((layer.qk_dim, layer.qk_dim, layer.dim), dim=-1)


def heads(layer, x):
    batch, height, width, _ = x.shape
    rows, columns = layer.regions
    mode = layer.padding
    if mode == "projected":
        size = (max(1, height // rows), max(1, width // columns))
    else:
        size = (-(-height // rows), -(-width // columns))
    counts = (-(-height // size[0]), -(-width // size[1])) if mode != "input" else layer.regions
    tall, wide = counts[0] * size[0], counts[1] * size[1]

    def padded(t):
        whole = torch.zeros(batch, tall, wide, t.shape[-1], dtype=x.dtype)
        whole[:, :height, :width] = t
        return whole

    query, key, value = projected(layer, padded(x)) if mode == "input" else map(padded, projected(layer, x))
    regions = [(r, c) for r in range(counts[0]) for c in range(counts[1])]

    def places(region, everything):
        y, z = region[0] * size[0], region[1] * size[1]
        bottom, right = (tall, wide) if everything else (height, width)
        return [(i, j) for i in range(y, min(y + size[0], bottom)) for j in range(z, min(z + size[1], right))]

    def mean(t, region):
        vector = torch.stack([t[:, i, j] for i, j in places(region, mode == "input")]).mean(0)
        return vector if layer.router is None else vector @ layer.router.weight.T + layer.router.bias

    scale = layer.qk_dim**-0.5
    queries, keys = (torch.stack([mean(t, region) for region in regions], dim=1) for t in (query, key))
    scores = scale * torch.einsum("bqc,bkc->bqk", queries, keys)
    best = scores.argsort(dim=-1, descending=True)[..., : min(layer.keep, len(regions))]
    split = (layer.heads, -1)
    query, key, value = (t.unflatten(-1, split) for t in (query, key, value))
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=x.dtype)
    for b in range(batch):
        for number, region in enumerate(regions):
            kept = [regions[i] for i in best[b, number].tolist()]
            near, far = key[b : b + 1], value[b : b + 1]
            if layer.soft:
                shares = scores[b, number, best[b, number]].softmax(-1)
                weights = torch.zeros(tall, wide, dtype=x.dtype)
                for share, other in zip(shares, kept, strict=True):
                    mask = torch.zeros(tall, wide, dtype=x.dtype)
                    for i, j in places(other, True):
                        mask[i, j] = 1.0
                    weights = weights + share * mask
                near, far = (t * weights[None, :, :, None, None] for t in (near, far))
            seen = [place for other in kept for place in places(other, mode != "masked")]
            for i, j in places(region, False):
                one = every_query(query[b : b + 1, i : i + 1, j : j + 1], near, far, lambda *_, s=seen: s, scale)
                out[b, i, j] = one[0, 0, 0]
    return out[:, :height, :width]
