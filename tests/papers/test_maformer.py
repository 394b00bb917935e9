"""The experiment of MAFormer: scenes of two scales, arms of one size, and its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data import digits
from windeye.nn.mixers import MultiScaleFusionMixer
from windeye.papers import maformer
from windeye.papers.maformer import arms, judgement, plan, scenes, speed, training
from windeye.papers.scene_plan import ScenePlan
from windeye.report import Row
from windeye.tokens import resize

JOINT = {plan.LOCAL: 30.0, plan.GLOBAL: 20.0, plan.SUM: 60.0, plan.CONCAT: 62.0, plan.MAF: 65.0}
LARGE = dict.fromkeys(plan.ARMS, 70.0) | {plan.LOCAL: 40.0}
SMALL = dict.fromkeys(plan.ARMS, 90.0) | {plan.GLOBAL: 60.0}


def rows(sizes=(), large=(), small=(), **joint):
    """Rows under which the rule holds, but for the changes."""
    names = {"local": plan.LOCAL, "glob": plan.GLOBAL, "added": plan.SUM, "concat": plan.CONCAT, "maf": plan.MAF}
    changed = JOINT | {names[name]: value for name, value in joint.items()}
    made = []
    for arm in plan.ARMS:
        for metric, value in (
            (judgement.JOINT, changed[arm]),
            (judgement.LARGE, dict(LARGE, **dict(large))[arm]),
            (judgement.SMALL, dict(SMALL, **dict(small))[arm]),
        ):
            made.append(Row(arm, metric, value if isinstance(value, tuple) else (value,) * 3, "%"))
        made.append(Row(arm, "parameters", (dict(sizes).get(arm, 1000.0),)))
    return made


@pytest.mark.parametrize(
    ("changed", "verdict", "failed"),
    [
        ({}, "shown", 0),
        ({"maf": (65.0, 65.0, 61.9)}, "not shown", 1),
        ({"maf": 62.0}, "not shown", 1),
        ({"maf": 60.9, "concat": 60.5}, "not shown", 1),
        ({"concat": 59.0}, "not shown", 1),
        ({"local": (30.0, 66.0, 30.0)}, "not shown", 1),
        ({"large": {plan.LOCAL: 61.0}}, "not shown", 1),
        ({"small": {plan.GLOBAL: 81.0}}, "not shown", 1),
        ({"sizes": {plan.LOCAL: 1030.0}}, "not shown", 1),
        ({"maf": 58.0}, "opposite", 2),
        ({"maf": 59.5}, "not shown", 2),
        ({"maf": (58.0, 58.0, 60.5)}, "not shown", 2),
    ],
)
def test_the_rule(changed, verdict, failed):
    made = rows(**changed)
    assert sum(not check.held for check in judgement.checks(made)) == failed
    assert judgement.verdict(made) == verdict


@pytest.mark.parametrize("budget", plan.PLANS)
def test_arms_are_as_large_as_fusion_by_attention(budget):
    with torch.device("meta"):
        sizes = {
            arm: sum(p.numel() for p in arms.network(arm, plan.PLANS[budget]).parameters()) for arm in plan.ARMS
        }  # fmt: skip
    limit = 0.02 if budget != "smoke" else 0.05
    assert all(abs(size / sizes[plan.MAF] - 1) < limit for size in sizes.values())


def built(arm):
    mixer = arms.ArmSpec(arm, 2.0).build(8, 2).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mixer, torch.randn(2, 12, 12, 8, dtype=torch.float64)


def given(arm, other):
    mixer, _ = built(arm)
    mixer.load_state_dict(other.state_dict(), strict=False)
    return mixer


def test_arms_are_the_branches_of_one_mixer_and_ways_of_joining_them():
    mixer, x = built(plan.MAF)
    assert type(mixer) is MultiScaleFusionMixer
    local, far = mixer.local(x), resize(mixer.tokens(x), (12, 12))
    torch.testing.assert_close(given(plan.LOCAL, mixer)(x), local)
    torch.testing.assert_close(given(plan.GLOBAL, mixer)(x), mixer.proj(far))
    torch.testing.assert_close(given(plan.SUM, mixer)(x), local + mixer.proj(far))
    concat, _ = built(plan.CONCAT)
    both = torch.cat((x + concat.local(x), resize(concat.tokens(x), (12, 12))), dim=-1)
    torch.testing.assert_close(concat(x), concat.local(x) + concat.proj(both))


@pytest.mark.parametrize("arm", [*plan.ARMS, *plan.ABLATIONS])
def test_every_weight_of_an_arm_is_used(arm):
    model = arms.network(arm, plan.PLANS["smoke"])
    model(torch.randn(2, 1, 48, 48)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert len(model.stages[0]) == plan.PLANS["smoke"].blocks


def test_ablations_change_the_number_of_global_tokens():
    counts = {arm: arms.ArmSpec(arm, 2.0).build(8, 2).tokens.bias.numel() for arm in (*plan.ABLATIONS, plan.MAF)}
    assert counts == {plan.ablation(ratio): int(144 * ratio) for ratio in plan.RATIOS}


def test_scenes_follow_from_their_generator_and_show_both_digits(monkeypatch):
    images, labels = scenes.scenes(5, torch.Generator().manual_seed(3))
    again, same = scenes.scenes(5, torch.Generator().manual_seed(3))
    assert torch.equal(images, again)
    assert torch.equal(labels, same)
    scans, values = scenes.digits()
    monkeypatch.setattr(scenes, "digits", lambda: (scans, torch.arange(len(values))))
    monkeypatch.setattr(scenes, "NOISE", 0.0)
    images, chosen = scenes.scenes(5, torch.Generator().manual_seed(3))
    assert torch.equal(values[chosen], labels)
    for image, (large, small) in zip(images[:, 0], chosen.tolist(), strict=True):
        ink = scenes.stencil(scans[large][None])[0]
        for y in range(48):
            for x in range(48):
                assert image[y, x] == (scans[small, y % 8, x % 8] if ink[y, x] else 0)


def test_held_out_scenes_show_scans_that_training_never_does(monkeypatch):
    scans, values = scenes.digits()
    monkeypatch.setattr(scenes, "digits", lambda: (scans, torch.arange(len(values))))
    for held_out in (False, True):
        _, chosen = scenes.scenes(50, torch.Generator().manual_seed(0), held_out=held_out)
        assert ((chosen >= digits.TRAINED) == held_out).all()


def test_hits_are_counted_digit_by_digit():
    class Knows(torch.nn.Module):
        """The large digit is always 3, the small one is right."""

        def forward(self, images):
            logits = torch.zeros(len(images), 20)
            logits[:, 3] = 1.0
            start = self.at
            self.at += len(images)
            logits[torch.arange(len(images)), 10 + labels[start : self.at, 1]] = 1.0
            return logits

    small = ScenePlan(8, 2, 1, 1, 1, 1e-3, 250, 3)
    random = torch.Generator().manual_seed(training.derived_seed("maformer held out", 4))
    _, labels = scenes.scenes(250, random, held_out=True)
    model = Knows()
    model.at = 0
    large, tiny = training.right(model, small, 4, "cpu")
    assert tiny.all()
    assert torch.equal(large, labels[:, 0] == 3)


def test_blocks_that_are_timed_have_as_many_parameters():
    case = speed.Case(1, 14, 32)
    wanted = 30000
    for spec in (speed.WindowSpec(), speed.StripeSpec(None)):
        assert abs(speed._size(speed._equal(case, spec, wanted)) - wanted) <= 65


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(maformer, tmp_path_factory.mktemp("maformer"))


def test_a_smoke_run_has_every_arm_and_the_times_of_parts(smoke):
    evidence = smoke.evidence
    for arm in (*plan.ARMS, *plan.ABLATIONS):
        joint, large, small = (
            evidence.row(arm, metric).mean for metric in (judgement.JOINT, judgement.LARGE, judgement.SMALL)
        )
        assert 0 <= joint <= min(large, small) <= 100
    for part in (speed.SUMS, speed.FUSION, speed.WINDOWS, speed.STRIPES):
        assert evidence.row(part, f"{judgement.SHARE}, 1 x 14x14 x 64").mean > 0
    assert evidence.checks == judgement.checks(evidence.rows)
    assert evidence.verdict == judgement.verdict(evidence.rows)
    assert len(evidence.pictures) == 3
