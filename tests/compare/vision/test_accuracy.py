"""Training one arm: paired, repeated to the bit, and able to learn what it is asked."""

import pytest
import torch

from windeye.compare.training import PILOT
from windeye.compare.vision import AccuracyPlan, Skeleton, arms, train_arm
from windeye.compare.vision.accuracy import accuracy
from windeye.compare.vision.images import Images, Labelled
from windeye.models.vision import load_backbone

SKELETON = Skeleton(16, dims=(16, 16), heads=(2, 2))
PLAN = AccuracyPlan(SKELETON, steps=4, batch_size=8, every=2, watched=10)


def stripes(count, seed):
    """Black and white, lying or standing."""
    labels = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed))
    lying = 255 * (torch.arange(16) // 2 % 2).byte()[:, None].expand(16, 16)
    return Labelled(torch.where(labels[:, None, None, None] == 0, lying, lying.T), labels)


IMAGES = Images("stripes", ("lying", "standing"), stripes(40, 0), stripes(30, 1))


def test_a_run_repeats_itself_to_the_bit_and_leaves_its_model(tmp_path):
    def told(outcome):
        history = [{**look, "seconds": 0} for look in outcome["history"]]
        return {**outcome, "seconds": 0, "history": history}

    path = tmp_path / "models" / "vsa.safetensors"
    first = train_arm(arms()["vsa"], IMAGES, PLAN, 1, path)
    torch.manual_seed(99)
    assert told(train_arm(arms()["vsa"], IMAGES, PLAN, 1)) == told(first)
    assert [look["step"] for look in first["history"]] == [2, 4]
    assert first["steps"] == 4
    assert 0 < first["history"][0]["seconds"] < first["history"][1]["seconds"] == first["seconds"]
    assert accuracy(load_backbone(path), IMAGES.test) == first["accuracy"]


def test_every_arm_of_a_seed_sees_the_same_pictures_in_the_same_order(monkeypatch):
    from windeye.models.vision import HierarchicalBackbone

    seen = []
    forward = HierarchicalBackbone.forward

    def watched(model, images):
        if model.training:
            seen[-1].append(images)
        return forward(model, images)

    monkeypatch.setattr(HierarchicalBackbone, "forward", watched)
    for name in ("full", "stripes", "none"):
        seen.append([])
        train_arm(arms()[name], IMAGES, PLAN, 7)
    assert len(seen[0]) == PLAN.steps
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


def test_stripes_are_told_apart_and_what_is_watched_is_what_is_tested():
    plan = AccuracyPlan(SKELETON, steps=40, batch_size=16, every=40, watched=100)
    outcome = train_arm(arms()["full"], IMAGES, plan, 0)
    assert outcome["accuracy"] == outcome["history"][-1]["accuracy"] == 1.0
    assert not outcome["diverged"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"watched": 1.5}, "watched must be an integer, got 1.5"),
    ],
)
def test_bad_plans_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        AccuracyPlan(**options)


def test_the_seed_of_the_pilot_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        train_arm(arms()["full"], IMAGES, PLAN, PILOT)


def test_an_arm_that_diverges_is_tested_as_it_stands(monkeypatch):
    from windeye.train import NonFinite

    def explode(*_arguments, **_options):
        raise NonFinite("the loss of step 1 is nan")

    monkeypatch.setattr("windeye.compare.training.fit", explode)
    outcome = train_arm(arms()["full"], IMAGES, PLAN, 0)
    assert outcome["diverged"]
    assert outcome["steps"] == 0
    assert outcome["accuracy"] == accuracy(SKELETON.build(arms()["full"], 0, classes=2), IMAGES.test)
