"""Textbook forms compute what the layers compute, gradients included."""

import pytest
import torch

from windeye.bench.textbook import eager, textbook
from windeye.nn.mixers import (
    BiLevelRoutingMixer,
    FullMixer,
    HiLoMixer,
    NeighborhoodMixer,
    Plan,
    SpatialReductionMixer,
    StripeMixer,
    VSAMixer,
    WindowMixer,
)
from windeye.patterns import Neighborhood

LAYERS = {
    "full": FullMixer(16, 4),
    "hilo, odd": HiLoMixer(16, 4),
    "spatial reduction": SpatialReductionMixer(16, 4, ratio=2),
    "stripes": StripeMixer(16, 4, stripe=3),
    "window": WindowMixer(16, 4, 4),
    "window, shifted": WindowMixer(16, 4, 4, shift=2),
    "window, padded": WindowMixer(16, 4, 4, shift=(2, 1), pad_input=True, bias_table=False),
    "neighborhood": NeighborhoodMixer(16, 4, 5),
    "neighborhood, dilated": NeighborhoodMixer(16, 4, 3, dilation=2),
    "vsa": VSAMixer(16, 4, window=4),
    "routing": BiLevelRoutingMixer(16, 4, regions=3, keep=2),
    "routing, pooled": BiLevelRoutingMixer(16, 4, regions=3, keep=2, pool=2, padding="input"),
    "routing, soft": BiLevelRoutingMixer(16, 4, regions=3, keep=2, soft=True),
}


@pytest.mark.parametrize("size", [(9, 11), (12, 12)])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_same_layer(name, size):
    if name == "routing, pooled" and size == (9, 11):
        size = (6, 18)
    layer = LAYERS[name].double()
    torch.manual_seed(1)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, *size, 16, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), textbook(layer)(x)
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-11)
    wanted = (x, *layer.parameters())
    for got, expected in zip(*(torch.autograd.grad(out.square().sum(), wanted) for out in (theirs, ours)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)


def test_queries_with_differently_many_keys_have_none():
    x = torch.randn(1, 6, 6, 2, 4)
    plan = Plan(x, x, x, Neighborhood(3, boundary="truncate"), 0.5)
    with pytest.raises(ValueError, match="differently many keys"):
        eager(plan)
