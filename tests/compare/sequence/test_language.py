"""Language models side by side: bits per byte, paired windows, and text that no arm has seen."""

import pytest
import torch
from torch import nn

from windeye.compare.sequence.language import BYTES, LanguagePlan, bits_per_byte, train_language
from windeye.data.sequences import Sequences
from windeye.models import AttentionSpec, LightningSpec

PLAN = LanguagePlan("pydoc", length=16, dim=16, glu_dim=16, steps=4, batch_size=4, held_out=70, every=2)


def test_bits_per_byte_of_knowing_nothing_is_eight_and_of_knowing_everything_zero():
    examples = PLAN.held_out_windows()
    nothing = nn.Embedding.from_pretrained(torch.zeros(BYTES, BYTES))
    assert bits_per_byte(nothing, examples) == pytest.approx(8.0)
    echo = nn.Embedding.from_pretrained(99 * torch.eye(BYTES))
    assert bits_per_byte(echo, Sequences(examples.tokens, examples.tokens)) == pytest.approx(0.0, abs=1e-6)


def test_bits_per_byte_is_the_mean_over_bytes_of_minus_log2():
    torch.manual_seed(0)
    examples = PLAN.held_out_windows()
    logits = torch.randn(BYTES, BYTES)
    model = nn.Embedding.from_pretrained(logits)
    p = logits.double().softmax(dim=-1)[examples.tokens, examples.targets]
    assert bits_per_byte(model, examples) == pytest.approx(float(-p.log2().mean()), rel=1e-6)


def test_what_is_scored_is_held_out_and_the_same_for_all():
    examples = PLAN.held_out_windows()
    held_out = [bytes(part.tolist()) for part in PLAN.windows.text.test]
    windows = [bytes(row.tolist()) for row in torch.cat((examples.tokens, examples.targets[:, -1:]), dim=1)]
    assert all(any(window in part for part in held_out) for window in windows)
    assert torch.equal(examples.tokens, PLAN.held_out_windows().tokens)


def test_a_run_learns_and_repeats_itself_and_arms_are_paired():
    first = train_language((AttentionSpec(4),), PLAN, 1)
    assert train_language((AttentionSpec(4),), PLAN, 1) | {"seconds": 0} == first | {"seconds": 0}
    assert first["bits_per_byte"] == first["history"][-1]["score"] < 8
    assert [point["step"] for point in first["history"]] == [2, 4]
    one, other = (PLAN.model((spec,), 1) for spec in (AttentionSpec(4), LightningSpec(4)))
    assert torch.equal(one.embedding.weight, other.embedding.weight)
    assert torch.equal(PLAN.batches(1)(3).tokens, PLAN.batches(1)(3).tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "novel"}, "text must be one of pydoc, python, gcide, austen, kjv, got 'novel'"),
        ({"length": 0}, "length must be at least 1, got 0"),
    ],
)
def test_bad_plans_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LanguagePlan(**options)


def test_the_seed_of_the_pilot_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        train_language((AttentionSpec(4),), PLAN, -1)
