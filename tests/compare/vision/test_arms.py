"""Arms are the same but for what is compared, and every registered mixer is among them."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from windeye.compare.vision import Arm, Skeleton, arms
from windeye.compare.vision.arms import BASELINE, CONTROLS
from windeye.models.vision import BackboneConfig
from windeye.nn.mixers import MIXERS, FullMixer, token_mixer

SKELETON = Skeleton()


def kinds(arm: Arm) -> set[str]:
    return {spec.kind for blocks in arm.stages for spec in blocks if spec is not None}


def test_every_registered_mixer_takes_part():
    assert set().union(*map(kinds, arms().values())) == MIXERS.keys()


def test_a_new_mixer_takes_part_by_registering():
    @token_mixer("mine")
    @dataclass(frozen=True)
    class MineSpec:
        kind: ClassVar[str]

        def build(self, dim, heads):
            return FullMixer(dim, heads)

    try:
        assert kinds(arms()["mine"]) == {"mine"}
    finally:
        del MIXERS["mine"]
    assert "mine" not in arms()


@pytest.mark.parametrize("name", list(arms()))
def test_an_arm_learns_in_all_its_parts_and_survives_as_data(name):
    model = SKELETON.build(arms()[name], 0, in_chans=3, classes=4)
    assert BackboneConfig.from_dict(model.config.to_dict()) == model.config
    for side in (32, 50):
        logits = model(torch.randn(2, 3, side, side))
        assert logits.shape == (2, 4)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", list(arms()))
def test_what_arms_have_in_common_starts_alike(name):
    common = SKELETON.build(arms()["position"], 3).state_dict()
    own = SKELETON.build(arms()[name], 3).state_dict()
    shared = own.keys() & common.keys()
    assert all(torch.equal(own[key], common[key]) for key in shared)
    assert {"entries.0.conv.weight", "stages.1.1.feed_forward.fc1.weight", "head.weight"} <= shared
    parts = {key.split(".")[3] for key in own.keys() - common.keys()}
    assert parts <= {"mixer", "norm1"}
    other = SKELETON.build(arms()[name], 4).state_dict()
    assert not torch.equal(other["head.weight"], own["head.weight"])


def test_mixers_differ_from_full_attention_in_both_stages():
    """On the skeleton's maps no arm but the baseline sees everything from everywhere."""
    x = [torch.randn(1, side, side, 32) for side in (16, 8)]
    for name, arm in arms().items():
        if name in (BASELINE, *CONTROLS):
            continue
        for blocks, seen in zip(arm.stages, x, strict=True):
            torch.manual_seed(0)
            plans = blocks[0].build(32, 2).plans(seen)
            tokens = seen.shape[1] ** 2
            from windeye.nn.mixers.plan import pairs

            assert sum(pairs(plan) * plan.query.shape[-2] for plan in plans) < 2 * tokens**2, name


def test_the_generator_of_torch_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SKELETON.build(arms()["vsa"], 1)
    assert torch.equal(torch.rand(3), expected)


def test_tables_do_not_decay():
    from windeye.train import AdamW

    model = SKELETON.build(arms()["window"], 0)
    decayed, kept = (group["params"] for group in AdamW().of(model).param_groups)
    tables = [p for name, p in model.named_parameters() if name.endswith("bias_table")]
    assert len(tables) == 4
    assert all(any(p is other for other in kept) for p in tables)
    assert not any(p is other for p in tables for other in decayed)
