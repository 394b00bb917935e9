"""The experiment of preplan and anchor: its measures, its policy, its rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from papers.smoke import Smoke, smoke_run
from windeye.data.tasks.plan_then_fill import Role
from windeye.papers import card, preplan_anchor, registry
from windeye.papers.experiment import Run
from windeye.papers.preplan_anchor import judgement, policy, reading, signals, toy
from windeye.papers.preplan_anchor.judgement import (
    ALL_HEADS,
    FAI_LIFT,
    FIRST,
    INSIDE,
    PLACED_LIFT,
    TYPED,
    UNTRAINED,
    WAAD_RATIO,
)
from windeye.papers.preplan_anchor.plan import PLANS
from windeye.report import Evidence, Recorder, Row, evidence_page

SMOKE = PLANS["smoke"]
GOOD = {
    "first": ("toy", FIRST, 0.99),
    "inside": ("toy", INSIDE, 1.0),
    "ratio": (TYPED, WAAD_RATIO, 1.6),
    "every": (ALL_HEADS, WAAD_RATIO, 1.25),
    "even": (UNTRAINED, WAAD_RATIO, 0.98),
    "lift": (TYPED, FAI_LIFT, 3.5),
    "placed": (TYPED, PLACED_LIFT, 2.0),
    "even_lift": (UNTRAINED, PLACED_LIFT, 1.0),
}


def rows(**changed: float | tuple[float, ...]) -> list[Row]:
    """Rows under which the rule holds, but for the changes: one number, or one per seed."""
    made = []
    for name, (arm, metric, usual) in GOOD.items():
        value = changed.get(name, usual)
        made.append(Row(arm, metric, value if isinstance(value, tuple) else (value, value, value)))
    return made


def failed(made: Sequence[Row]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    return smoke_run(preplan_anchor, tmp_path_factory.mktemp("preplan_anchor"))


def test_every_arm_leaves_its_numbers(smoke):
    evidence = smoke.evidence
    for arm in judgement.ARMS:
        for metric in (WAAD_RATIO, FAI_LIFT, PLACED_LIFT):
            assert math.isfinite(evidence.row(arm, metric).mean)
    for rule in policy.RULES:
        assert 0 <= evidence.row(rule, judgement.AREA).mean <= 1
    assert evidence.verdict == judgement.verdict(evidence.rows)
    assert "Rewards" in evidence_page(evidence)


def test_a_run_goes_on_where_it_stopped(smoke):
    evidence, path = smoke.evidence, smoke.path
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    again = preplan_anchor.experiment(Run("smoke", (0,), recorder=Recorder(path, {})))
    assert len(path.read_text().splitlines()) == len(lines)
    assert again.rows == evidence.rows


def test_moments_are_where_numbers_come_next():
    text = SMOKE.toy.task.marked(3, seed=0)
    starts, inside = toy.moments(text.roles)
    for row, place in starts.nonzero().tolist():
        assert text.roles[row, place] == Role.REFERENCE
        assert text.roles[row, place + 1] == Role.NUMBER
    for row, place in inside.nonzero().tolist():
        assert text.roles[row, place] == text.roles[row, place + 1] == Role.NUMBER
    task = SMOKE.toy.task
    assert int(starts.sum()) == 3 * task.chunks
    assert int(inside.sum()) == 3 * task.chunks * (task.numbers - 1)


def test_a_signal_that_is_only_a_matter_of_place_has_no_lift_over_places():
    fai = torch.linspace(1, 0, 50).expand(200, 50)
    wanted = torch.rand(200, 50) < torch.linspace(0.5, 0.0, 50)
    lift, placed = signals.lifts(fai, wanted)
    assert lift > 1.5
    assert placed == pytest.approx(1.0)
    lift, placed = signals.lifts(wanted.double(), wanted)
    assert placed > 2


def test_right_chunks_are_rewarded_one_by_one():
    prompt, key, value = policy.prompts(SMOKE.toy, SMOKE.policy, seed=0, step=0)
    text = SMOKE.toy.task.marked(
        SMOKE.policy.prompts, seed=policy.derived_seed("prompts", 0, 0), definitions_first=True
    )
    rest = text.tokens[:, 3 * SMOKE.toy.task.definitions :].repeat_interleave(SMOKE.policy.samples, dim=0)
    assert torch.equal(policy.rewarded(rest, key, value, SMOKE.toy), torch.ones(len(prompt)))
    rest[0, -1] = (rest[0, -1] + 1) % 23
    assert policy.rewarded(rest, key, value, SMOKE.toy).tolist() == [0.5, 1.0, 1.0, 1.0]


def test_the_clipped_objective_follows_the_gradient_of_weighted_likelihood():
    """At the old policy the ratio is 1: one step of gradient descent is that of credit times log-likelihood."""
    model = toy.untrained(SMOKE.toy, 0)
    ids = torch.randint(SMOKE.toy.task.vocabulary, (4, 12))
    response = (torch.arange(12) >= 5).expand(4, 12)
    credit = torch.randn(4, 12)
    plan = policy.PolicyPlan(minibatches=1)
    before = [p.detach().clone() for p in model.parameters()]
    loss = -((policy.log_likelihood(model, ids) * credit[:, 1:] * response[:, 1:]).sum(1) / 7).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.stack([g.norm() for g in gradients]).norm().clamp(min=1.0)
    policy.update(model, torch.optim.SGD(model.parameters(), lr=0.1), ids, credit, response, plan)
    for was, now, gradient in zip(before, model.parameters(), gradients, strict=True):
        torch.testing.assert_close(now, was - 0.1 * gradient / norm, rtol=1e-4, atol=1e-5)


def test_policies_of_a_seed_see_the_same_and_repeat_themselves():
    weights = toy.untrained(SMOKE.toy, 0).state_dict()
    first, again = (
        policy.optimise(weights, policy.COUPLED, SMOKE.toy, SMOKE.policy, 0, lambda _share: None) for _ in range(2)
    )
    other = policy.optimise(weights, policy.UNIFORM, SMOKE.toy, SMOKE.policy, 0, lambda _share: None)
    assert first["rewards"] == again["rewards"]
    assert first["rewards"][0] == other["rewards"][0]


@given(st.lists(st.integers(0, 5), min_size=3, max_size=30))
def test_peaks_are_high_and_no_neighbour_is_higher(values):
    signal = torch.tensor([values], dtype=torch.float32)
    found = reading.peaks(signal, torch.ones(len(values), dtype=torch.bool))[0].tolist()
    least = sorted(values, reverse=True)[max(1, round(reading.SHARE * len(values))) - 1]
    for place, value in enumerate(values):
        around = values[max(0, place - 1) : place + 2]
        assert found[place] == (value == max(around) and value >= least)


def test_rotations_find_what_follows_and_nothing_where_nothing_does():
    generator = torch.Generator().manual_seed(0)
    plans = torch.rand(6, 300, generator=generator) < 0.05
    chance = reading.Rotations(200, 6, 300)
    follows = chance.of(plans.roll(2, dims=1), plans)
    apart = chance.of(torch.rand(6, 300, generator=generator) < 0.05, plans)
    assert follows["seen"] > 0.95 > 3 * follows["chance"]
    assert follows["p"] < 0.01 < 0.02 < apart["p"]
    assert apart["seen"] == pytest.approx(apart["chance"], abs=0.12)
    raised = chance.mean(plans.double() + torch.rand(6, 300, generator=generator), plans)
    assert raised["seen"] > raised["chance"] + 0.8
    assert raised["p"] < 0.01


def test_shown_when_all_holds():
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"first": (0.99, 0.99, 0.9)}, "every toy names at least 95%"),
        ({"inside": (1.0, 0.9, 1.0)}, "every toy names at least 95%"),
        ({"ratio": 1.29}, "WAAD at least 1.3 times higher"),
        ({"every": 1.7}, "a higher ratio than with all heads averaged"),
        ({"lift": 1.9}, "at least 2 times as frequent"),
        ({"placed": 1.29}, "at least 2 times as frequent"),
        ({"even": 1.2}, "an untrained model shows neither"),
        ({"even": 0.8}, "an untrained model shows neither"),
        ({"even_lift": 1.2}, "an untrained model shows neither"),
    ],
)
def test_each_gate_alone_prevents_shown(changed, demand):
    made = rows(**changed)
    broken = failed(made)
    assert len(broken) == 1
    assert demand in broken[0]
    assert judgement.verdict(made) == "not shown"


def test_opposite_needs_a_model_that_has_learned_and_every_seed():
    assert judgement.verdict(rows(ratio=0.9, placed=0.9)) == "opposite"
    assert judgement.verdict(rows(ratio=(0.9, 0.9, 1.01), placed=0.9)) == "not shown"
    assert judgement.verdict(rows(ratio=0.9, placed=0.9, first=0.5)) == "not shown"


def test_a_missing_row_is_an_error():
    with pytest.raises(KeyError):
        judgement.verdict([row for row in rows() if row.metric != FAI_LIFT])


def committed() -> Evidence:
    evidence = registry.evidence_of(card.find("preplan-anchor"))
    assert evidence is not None
    return evidence


def test_what_the_limits_say_was_seen():
    evidence = committed()

    def mean(arm: str, metric: str) -> float:
        return evidence.row(arm, metric).mean

    assert mean(TYPED, WAAD_RATIO) > 2 * mean(ALL_HEADS, WAAD_RATIO)
    assert mean(TYPED, FAI_LIFT) < mean(ALL_HEADS, FAI_LIFT)
    assert mean(UNTRAINED, FAI_LIFT) > 2
    rewards = {rule: 100 * mean(rule, judgement.AREA) for rule in policy.RULES}
    assert rewards[policy.COUPLED] - rewards[policy.UNIFORM] == pytest.approx(0.5, abs=0.1)
    assert rewards[policy.RANDOM] - rewards[policy.UNIFORM] == pytest.approx(0.5, abs=0.1)
    assert rewards[policy.BOTTOM] - rewards[policy.UNIFORM] == pytest.approx(-0.5, abs=0.1)
    follows, _, own = (metric for metric, _ in judgement.READINGS.values())
    gains = {}
    for view in (reading.PUBLISHED, reading.WHOLE, reading.OPEN, reading.SINKLESS):
        arm = f"{judgement.TEXT}, {view}"
        gains[view] = 100 * (mean(arm, follows) - mean(arm, f"{follows}, rotated"))
        assert mean(arm, f"{follows}, share of rotations that reach it") < 0.05
        raised = mean(arm, own) - mean(arm, f"{own}, rotated")
        assert raised < -0.4 if view == reading.SINKLESS else raised > 0.1
    assert gains.pop(reading.PUBLISHED) == pytest.approx(3, abs=0.5)
    assert all(5.5 < gain < 9.5 for gain in gains.values())
