"""Training one arm: paired, repeated to the bit, and able to learn what it is asked."""

import pytest
import torch

from windeye.compare.training import PILOT
from windeye.compare.vision import AccuracyPlan, Skeleton, arms, choose_rate, train_arm
from windeye.compare.vision.accuracy import accuracy
from windeye.compare.vision.images import Images, Labelled
from windeye.models.vision import load_backbone

SKELETON = Skeleton(16, dims=(16, 16), heads=(2, 2))
PLAN = AccuracyPlan(SKELETON, steps=4, batch_size=8, every=2, watched=10)
RATE = 6e-3


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
    first = train_arm(arms()["vsa"], IMAGES, PLAN, 1, path, rate=RATE)
    torch.manual_seed(99)
    assert told(train_arm(arms()["vsa"], IMAGES, PLAN, 1, rate=RATE)) == told(first)
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
        train_arm(arms()[name], IMAGES, PLAN, 7, rate=RATE)
    assert len(seen[0]) == PLAN.steps
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


def test_stripes_are_told_apart_and_what_is_watched_is_what_is_tested():
    plan = AccuracyPlan(SKELETON, steps=40, batch_size=16, every=40, watched=100)
    outcome = train_arm(arms()["full"], IMAGES, plan, 0, rate=RATE)
    assert outcome["accuracy"] == outcome["history"][-1]["accuracy"] == 1.0
    assert not outcome["diverged"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"watched": 1.5}, "watched must be an integer, got 1.5"),
        ({"rates": ()}, r"rates must name at least one learning rate above 0, got \(\)"),
        ({"rates": (1e-3, 0.0)}, r"above 0, got \(0.001, 0.0\)"),
        ({"rates": (float("nan"),)}, r"above 0, got \(nan,\)"),
        ({"rates": (1e-3, 1e-3)}, r"rates must differ, got \(0.001, 0.001\)"),
    ],
)
def test_bad_plans_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        AccuracyPlan(**options)


def test_the_seed_of_the_pilot_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        train_arm(arms()["full"], IMAGES, PLAN, PILOT, rate=RATE)


def test_an_arm_that_diverges_is_tested_as_it_stands(monkeypatch):
    from windeye.train import NonFinite

    def explode(*_arguments, **_options):
        raise NonFinite("the loss of step 1 is nan")

    monkeypatch.setattr("windeye.compare.training.fit", explode)
    outcome = train_arm(arms()["full"], IMAGES, PLAN, 0, rate=RATE)
    assert outcome["diverged"]
    assert outcome["steps"] == 0
    assert outcome["accuracy"] == accuracy(SKELETON.build(arms()["full"], 0, classes=2), IMAGES.test)


class TestRates:
    def test_the_rate_that_learns_is_chosen(self):
        plan = AccuracyPlan(SKELETON, steps=40, batch_size=16, rates=(1e-7, 6e-3))
        choice = choose_rate(arms()["full"], IMAGES, plan)
        assert choice["rate"] == 6e-3
        assert choice["rates"] == [1e-7, 6e-3]
        assert choice["scores"][0] < choice["scores"][1] == 1.0

    def test_no_picture_of_the_test_is_seen_and_none_that_was_trained_on_is_scored(self):
        numbered = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(40, 1, 16, 16)
        train = Labelled(numbered, torch.arange(40) % 2)
        pilot = Images("numbers", ("even", "odd"), train, stripes(30, 1)).pilot()
        seen = [part.images[:, 0, 0, 0].tolist() for part in (pilot.train, pilot.test)]
        assert len(seen[1]) == 4
        assert sorted(seen[0] + seen[1]) == list(range(40))
        assert all(torch.equal(part.labels, part.images[:, 0, 0, 0] % 2) for part in (pilot.train, pilot.test))

    def test_two_pictures_are_enough(self):
        pilot = Images("two", ("lying", "standing"), stripes(2, 0), stripes(30, 1)).pilot()
        assert len(pilot.train) == len(pilot.test) == 1

    def test_a_rate_alone_is_taken_untried(self, monkeypatch):
        monkeypatch.setattr("windeye.compare.training.fit", None)
        assert choose_rate(arms()["full"], IMAGES, PLAN) == {
            "rate": 6e-3, "rates": [6e-3], "scores": [], "steps": [], "seconds": 0.0,
        }  # fmt: skip
