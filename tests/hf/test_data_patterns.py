"""Patterns that hold a tensor, put on a model of transformers: linkage horizons equal the model's own additive mask."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import LlamaConfig, LlamaForCausalLM

from windeye.hf import attach
from windeye.patterns import Allowed, tree_horizon
from windeye.sites import watch

IDS = torch.arange(20).reshape(2, 10)
NODES = torch.zeros(2, 10, dtype=torch.bool)
NODES[:, 2:8] = True
PARENTS = torch.tensor([[-1, -1, -1, 2, 2, 3, 3, 4, -1, -1], [-1, -1, -1, 2, 3, 4, 3, 4, -1, -1]])


@pytest.fixture
def model():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=50, num_attention_heads=4, num_key_value_heads=2, **sizes)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_horizon_equals_the_additive_mask(model, hops):
    pattern = tree_horizon(NODES, PARENTS, hops)
    least = torch.finfo(torch.float32).min
    expected = model(IDS, attention_mask=torch.where(pattern.mask, 0.0, least), output_attentions=False).logits
    with attach(model, pattern):
        assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
    assert not torch.allclose(model(IDS).logits, expected, atol=1e-4)


@torch.no_grad()
def test_what_is_watched_is_what_the_horizon_shows(model):
    mask = torch.rand(2, 4, 10, 10) < 0.5
    mask |= torch.eye(10, dtype=torch.bool)
    with attach(model, Allowed(mask)), watch(model, ["column_mean", "row_mass"]) as seen:
        model(IDS)
    nobody = ~(mask & torch.ones(10, 10, dtype=torch.bool).tril()).any(dim=2).transpose(1, 2)
    assert not seen["column_mean"][:, nobody].any()
    assert torch.allclose(seen["row_mass"], torch.ones(()), atol=1e-6)
    alone = Allowed(torch.eye(10, dtype=torch.bool))
    with attach(model, alone), watch(model, ["entropy"]) as seen:
        model(IDS)
    assert not seen["entropy"].any()


def test_padding_in_front_is_refused(model):
    padding = torch.ones(2, 10, dtype=torch.long)
    padding[0, :2] = 0
    with (
        attach(model, tree_horizon(NODES, PARENTS, 1)),
        pytest.raises(ValueError, match=r"there is padding .*\[2, 0\]"),
    ):
        model(IDS, attention_mask=padding)
