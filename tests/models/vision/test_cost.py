"""Costs: formulas of the papers, published numbers, and one whole count by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from windeye.models import create
from windeye.models.vision import (
    BackboneConfig,
    ConvSpec,
    HierarchicalBackbone,
    MergeSpec,
    StageSpec,
    cost,
    cswin,
    swin,
)
from windeye.nn.mixers import MIXERS, FullSpec, WindowSpec

PUBLISHED = {
    # Vision notes, Swin repository.
    "swin_t": 4.5, "swin_s": 8.7, "swin_b": 15.4,
    # fna spec, configurations.
    "nat_mini": 2.7, "nat_tiny": 4.3, "nat_small": 7.8, "nat_base": 13.7,
    "dinat_mini": 2.7, "dinat_tiny": 4.3, "dinat_small": 7.8, "dinat_base": 13.7, "dinat_large": 30.6,
    # Vision notes, and DeiT's sizes in Swin's table.
    "vit_s": 4.6, "vit_b": 17.5,
    # maformer spec, peers.
    "cswin_t": 4.3, "cswin_s": 6.9, "cswin_b": 15.0,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_billions_are_the_published_ones(name):
    """To their last digit, and 1.5 % for what other counters count besides products."""
    with torch.device("meta"):
        model = create(name)
    assert cost(model).multiply_adds / 1e9 == pytest.approx(PUBLISHED[name], rel=0.015, abs=0.05)


def test_a_block_of_windows_costs_what_swins_formula_says():
    """``4 N C^2 + 2 w^2 N C`` for the attention and ``8 N C^2`` for the feed-forward part."""
    dim, window, side = 24, 7, 28
    tokens = side**2
    one, two = (
        cost(
            HierarchicalBackbone(
                BackboneConfig((StageSpec(dim, 2, ConvSpec(), (WindowSpec(window),) * blocks),), img_size=(112, 112))
            )
        )
        for blocks in (1, 2)
    )
    assert two.attention - one.attention == 2 * window**2 * tokens * dim
    assert two.projections - one.projections == 12 * tokens * dim**2
    assert one.pairs == 2 * tokens * window**2


@pytest.mark.parametrize("kind", MIXERS)
def test_layers_are_counted_as_torch_counts_them(kind):
    """Attention of our own kernels is invisible to torch's counter; everything else is not."""
    stages = (
        StageSpec(16, 2, ConvSpec(), (MIXERS[kind](), None), depthwise=True, position=3),
        StageSpec(32, 2, MergeSpec(), (MIXERS[kind](),)),
    )
    model = HierarchicalBackbone(BackboneConfig(stages, num_classes=4, img_size=(48, 56))).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.randn(1, 3, 48, 56))
    counted = counter.get_flop_counts()["Global"]
    layers = sum(flops for op, flops in counted.items() if "attention" not in str(op) and "bmm" not in str(op))
    assert 2 * cost(model).projections == layers


def test_full_attention_costs_two_products_of_all_pairs():
    stages = (StageSpec(16, 2, ConvSpec(), (FullSpec(),)), StageSpec(32, 4, MergeSpec(), (FullSpec(),)))
    found = cost(HierarchicalBackbone(BackboneConfig(stages)), (48, 56))
    assert found.pairs == 168**2 * 2 + 42**2 * 4
    assert found.attention == 2 * (168**2 * 16 + 42**2 * 32)


def test_other_sizes_cost_more_and_nothing_is_computed():
    model = swin(16, (1, 1), (2, 2), num_classes=5)
    small, large = cost(model, (224, 224)), cost(model, (448, 448))
    assert large.projections - 4 * small.projections == -3 * 5 * 32
    assert large.parameters == small.parameters == sum(p.numel() for p in model.parameters())
    assert cost(cswin(16, (1,), (2,), stripes=(1,)), (64, 32)).pairs == 16 * 8 * (16 + 8)
