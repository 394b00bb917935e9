"""Stripes in two directions, one query at a time."""

import torch

from nn.mixers.loops import every_query, project
from windeye.nn.mixers import StripeSpec

VARIANTS = [StripeSpec(), StripeSpec(2), StripeSpec(1, qkv_bias=False), StripeSpec(None)]


def heads(layer, x):
    _, height, width, _ = x.shape
    query, key, value = project(layer, x)
    places = [(y, z) for y in range(height) for z in range(width)]

    def columns(_, z):
        return [place for place in places if layer.stripe is None or place[1] // layer.stripe == z // layer.stripe]

    def rows(y, _):
        return [place for place in places if layer.stripe is None or place[0] // layer.stripe == y // layer.stripe]

    half, scale = layer.heads // 2, layer.head_dim**-0.5
    tall = every_query(query[..., :half, :], key[..., :half, :], value[..., :half, :], columns, scale)
    broad = every_query(query[..., half:, :], key[..., half:, :], value[..., half:, :], rows, scale)
    return torch.cat((tall, broad), dim=-2)
