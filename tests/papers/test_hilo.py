"""The experiment of HiLo: its scenes, what it measures, and its rule."""

import math

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data import digits
from windeye.data.sequences import IGNORED
from windeye.papers import hilo
from windeye.papers.hilo import judgement, plan, scenes, training
from windeye.papers.hilo.frequency import high_share
from windeye.report import Row

ACCURATE = {
    plan.FULL: 0.80, plan.REDUCED: 0.78, plan.WINDOWS: 0.77, plan.hilo(0.0): 0.70, plan.hilo(0.5): 0.80,
    plan.hilo(0.9): 0.79, plan.hilo(1.0): 0.76, plan.NONE: 0.6,
}  # fmt: skip
FAST = dict.fromkeys(plan.ARMS, 100.0) | {plan.hilo(0.9): 130.0, plan.FULL: 60.0}


def rows(accurate=(), fast=(), high=0.3, low=0.1, apart=0.02):
    """Rows under which the rule holds, but for the changes."""
    made = []
    for arm in plan.ARMS:
        value = {**ACCURATE, **dict(accurate)}[arm]
        made.append(Row(arm, judgement.ACCURACY, value if isinstance(value, tuple) else (value,) * 3))
        made.append(Row(arm, judgement.SPEED, ({**FAST, **dict(fast)}[arm],) * 3))
    for arm, pair in ((plan.hilo(0.5), (high, low)), (plan.hilo(0.9), (high, low)), (plan.FULL, (0.2, 0.2 + apart))):
        for layer in range(2):
            for kind, value in zip(judgement.KINDS, pair, strict=True):
                made.append(Row(arm, judgement.share_of(layer, kind), (value,) * 3))
    return made


def failed(made):
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(hilo, tmp_path_factory.mktemp("hilo"))


def test_every_arm_leaves_its_accuracy_and_its_speed(smoke):
    evidence = smoke.evidence
    for arm in plan.ARMS:
        assert 0 <= evidence.row(arm, judgement.ACCURACY).mean <= 1
        assert evidence.row(arm, judgement.SPEED).mean > 0
        looked = judgement.layers(evidence.rows, arm)
        assert looked == (list(range(2)) if arm in (plan.FULL, plan.hilo(0.5), plan.hilo(0.9)) else [])
    assert evidence.verdict == judgement.verdict(evidence.rows)


def test_alpha_keeps_some_heads_of_both_kinds():
    for alpha in plan.SPLIT:
        mixer = plan.ARMS[plan.hilo(alpha)].build(plan.PLANS["default"].dim, plan.PLANS["default"].heads)
        assert min(mixer.high, mixer.low) > 0


def test_scenes_follow_from_their_generator_and_name_what_they_show():
    images, labels = scenes.scenes(3, torch.Generator().manual_seed(5))
    again, same = scenes.scenes(3, torch.Generator().manual_seed(5))
    assert torch.equal(images, again)
    assert torch.equal(labels, same)
    ground = (labels == IGNORED).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert images[:, 0][ground].abs().max() < 6 * scenes.NOISE
    assert images[:, 0][~ground].mean() > 0.2
    assert labels[labels != IGNORED].unique().numel() > 3
    assert 0.3 < (labels != IGNORED).float().mean() < 0.95


def test_held_out_scenes_show_digits_that_training_never_does(monkeypatch):
    scans, values = scenes.digits()
    marked = torch.arange(len(values))
    monkeypatch.setattr(scenes, "digits", lambda: (scans, marked))
    for held_out in (False, True):
        _, labels = scenes.scenes(20, torch.Generator().manual_seed(0), held_out=held_out)
        assert ((labels[labels != IGNORED] >= digits.TRAINED) == held_out).all()


def test_photographs_are_grey_squares():
    crops = scenes.photographs()
    assert crops.shape == (16 + 64, 1, 64, 64)
    assert 0 <= crops.min() < 0.1 < 0.9 < crops.max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (9, 12)])
def test_fine_detail_is_what_sums_over_frequencies_say(size):
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    height, width = size
    y, z = torch.arange(height).double(), torch.arange(width).double()
    fine = total = 0.0
    for u in range(height):
        for v in range(width):
            wave = torch.exp(-2j * math.pi * (u * y[:, None] / height + v * z[None] / width))
            energy = (x * wave[None, :, :, None]).sum(dim=(1, 2)).abs().square().sum().item()
            down, right = (min(k, n - k) / n for k, n in ((u, height), (v, width)))
            total += energy * ((u, v) != (0, 0))
            fine += energy * (max(down, right) > 0.25)
    assert high_share(x) == pytest.approx(fine / total)


def test_what_is_looked_at_are_the_outputs_of_the_heads_of_each_kind():
    small = plan.PLANS["smoke"]
    model = training.Namer(plan.hilo(0.5), small).eval()
    images = scenes.photographs()[:3]
    found = training.shares(model, images)
    seen = []
    mixer = model.backbone.stages[0][0].mixer
    mixer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
        out = mixer.attention(seen[0])
    assert found[0] == pytest.approx([high_share(out[..., :3, :].flatten(-2)), high_share(out[..., 3:, :].flatten(-2))])
    assert len(found) == small.blocks


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


HALF, MOST = plan.hilo(0.5), plan.hilo(0.9)


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"accurate": {plan.FULL: 0.82}}, f"{HALF}: at most 1 point below full attention"),
        ({"accurate": {MOST: 0.78}}, f"{MOST}: at most 1 point below full attention"),
        ({"accurate": {plan.WINDOWS: 0.795}}, f"{MOST}: not below windows, nor spatial reduction"),
        ({"accurate": {plan.REDUCED: 0.805}}, f"{HALF}: not below windows, nor spatial reduction"),
        ({"accurate": {plan.hilo(1.0): 0.6}}, "of all alphas 0 names fewest"),
        ({"fast": {plan.WINDOWS: 131.0}}, f"a split HiLo is faster than {plan.WINDOWS}"),
        ({"fast": {plan.FULL: 140.0}}, f"a split HiLo is faster than {plan.FULL}"),
        ({"low": 0.31}, f"{MOST}: more fine detail in high than in low heads, every layer"),
        ({"apart": 0.25}, f"{HALF}: that gap is larger than between halves of the heads of full attention"),
    ],
)
def test_each_gate_can_fail(changed, demand):
    made = rows(**changed)
    assert demand in failed(made)
    assert judgement.verdict(made) == "not shown"


def test_a_margin_that_is_met_exactly_counts():
    assert failed(rows(accurate={plan.FULL: 0.80, MOST: 0.79})) == []


def test_it_is_opposite_only_if_both_lose_to_both_with_every_seed():
    low = {HALF: 0.7, MOST: 0.75}
    assert judgement.verdict(rows(accurate=low)) == "opposite"
    assert judgement.verdict(rows(accurate=low | {MOST: (0.7, 0.7, 0.775)})) == "not shown"
