"""What decays and what does not; the course of the rate."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest
from torch import nn

from windeye.train import AdamW, Cosine


class Tied(nn.Module):
    """A language model's parts: the head shares its weight with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.norm = nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight


def test_what_modules_name_does_not_decay():
    from windeye.models.vision import MaskedAutoencoder, swin, vit

    def undecayed(model):
        decayed = {id(p) for p in AdamW().groups(model)[0]["params"]}
        return {name for name, p in model.named_parameters() if p.ndim >= 2 and id(p) not in decayed}

    assert undecayed(swin(16, (1, 1), (2, 2), window=3, num_classes=2)) == {
        "stages.0.0.mixer.bias_table",
        "stages.1.0.mixer.bias_table",
    }
    tokens = {"class_token", "position_table"}
    encoder = vit(16, 1, 2, patch=4, positions="table", img_size=(8, 8), num_classes=0)
    assert undecayed(encoder) == tokens
    assert undecayed(MaskedAutoencoder(encoder)) == {f"encoder.{name}" for name in tokens} | {"hidden_token"}


def test_vectors_and_marked_parameters_do_not_decay():
    model = Tied()
    model.mix.weight._no_weight_decay = True
    decayed, kept = AdamW().groups(model)
    assert [id(p) for p in decayed["params"]] == [id(model.embed.weight)]  # tied with the head: once
    assert {id(p) for p in kept["params"]} == {
        id(p) for p in (model.mix.weight, model.mix.bias, *model.norm.parameters())
    }
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_stay_out():
    model = Tied()
    model.embed.weight.requires_grad_(False)
    found = Counter(id(p) for group in AdamW().groups(model) for p in group["params"])
    assert id(model.embed.weight) not in found
    assert set(found.values()) == {1}


def test_the_rate_rises_in_a_line_and_falls_like_a_cosine():
    shares = [Cosine(warm_up=10, final=0.2).share(step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[9:] == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * i / 90)) for i in range(91)])
    assert Cosine(final=0.5).share(0, 1) == 1.0
    assert [Cosine(warm_up=4).share(step, 2) for step in range(2)] == [0.25, 0.5]  # longer than the run


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rate": 0.0}, "rate must be positive and finite, got 0.0"),
        ({"clip": -1.0}, "clip must be positive and finite, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"betas": (0.9, 1.0)}, "betas must be in [0, 1), got (0.9, 1.0)"),
    ],
)
def test_impossible_optimisers_are_refused(wrong, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        AdamW(**wrong)


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="warm_up must be at least 0 steps, got -1"):
        Cosine(warm_up=-1)
    with pytest.raises(ValueError, match=r"final must be a share in \[0, 1\], got 1.5"):
        Cosine(final=1.5)
