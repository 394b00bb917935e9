"""Full attention, one query at a time."""

from nn.mixers.loops import every_query, project
from windeye.nn.mixers import FullSpec

VARIANTS = [FullSpec(), FullSpec(qkv_bias=False), FullSpec(3, "input")]


def heads(layer, x):
    query, key, value = project(layer, x)
    everything = [(y, z) for y in range(x.shape[1]) for z in range(x.shape[2])]
    return every_query(query, key, value, lambda *_: everything, layer.head_dim**-0.5)
