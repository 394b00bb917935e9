"""The experiment of Attention AT: its data, its arms, what is measured, and its rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data import where
from windeye.data.text import labelled, words_of
from windeye.models import AttentiveClassifier, AttentiveConfig
from windeye.nn.additive import masked_softmax
from windeye.nn.perturbation import Adversarial
from windeye.papers import attention_perturbation as paper
from windeye.papers.attention_perturbation import evaluation, judgement, plan, speed, training
from windeye.papers.attention_perturbation.texts import Texts, prepared
from windeye.report import Row

TASKS = ("tweets", "docstrings")
GOOD = {
    plan.VANILLA: (0.80, 0.74, 0.70, 0.70),
    plan.RANDOM: (0.80, 0.77, 0.75, 0.74),
    plan.ADVERSARIAL: (0.81, 0.80, 0.79, 0.79),
    plan.at(2.0): (0.80, 0.78, 0.77, 0.77),
    plan.at(30.0): (0.80, 0.79, 0.79, 0.78),
    plan.word_at(2.0): (0.81, 0.75, 0.7, 0.7),
    plan.word_at(8.0): (0.82, 0.75, 0.7, 0.7),
    plan.word_at(30.0): (0.70, 0.65, 0.6, 0.6),
}
METRICS = (
    evaluation.ACCURACY, evaluation.attacked(2.0), evaluation.attacked(5.0), evaluation.attacked_by_spread(2.0),
)  # fmt: skip


def rows(changed=(), task="tweets"):
    """Rows under which the rule holds, but for the changes on one task: (arm, place among METRICS) -> values."""
    made = [Row(plan.ADVERSARIAL, judgement.OVER_PLAIN, (1.1,))]
    for name in TASKS:
        for arm, values in GOOD.items():
            for place, (metric, value) in enumerate(zip(METRICS, values, strict=True)):
                if name == task:
                    value = dict(changed).get((arm, place), value)
                seeds = value if isinstance(value, tuple) else (value, value, value)
                made.append(Row(judgement.named(name, arm), metric, seeds))
    return made


def failed(made):
    return [check.demand for check in judgement.checks(made, plan.PLANS["default"]) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(paper, tmp_path_factory.mktemp("attention_perturbation"))


def test_every_arm_leaves_all_its_numbers(smoke):
    evidence = smoke.evidence
    for arm in plan.ARMS:
        for metric in (*METRICS, evaluation.attacked(5.0, 10), *evaluation.AGREEMENTS, evaluation.RANDOM):
            value = evidence.row(f"docstrings: {arm}", metric).mean
            assert (0 if metric.startswith("accuracy") else -1) <= value <= 1
    for arm in (plan.ADVERSARIAL, plan.word_at(8.0), speed.WHOLE):
        assert evidence.row(arm, judgement.OVER_PLAIN).mean > 0
    assert evidence.verdict == judgement.verdict(evidence.rows, plan.PLANS["smoke"])


def test_the_same_seed_is_the_same_training():
    small = plan.PLANS["smoke"]
    task = small.tasks["docstrings"]
    first, again = (
        training.train(plan.ARMS["Attention RP 8"], task, small, 3, "cpu", lambda _: None) for _ in range(2)
    )
    assert first["measured"] == again["measured"]


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_texts_are_never_trained_on_and_their_words_are_not_counted(seed):
    task = plan.PLANS["default"].tasks["docstrings"]
    train, test = labelled("docstrings").split(task.train, task.test, seed=seed)
    assert not {tuple(words_of(text)) for text in train.texts} & {tuple(words_of(text)) for text in test.texts}
    texts, held_out, vocabulary = prepared(task, plan.PLANS["default"], seed)
    assert sum(vocabulary.counts) == sum(len(words_of(text)) for text in train.texts)
    assert Counter(texts.labels.tolist()) == {0.0: 400, 1.0: 400}
    assert Counter(held_out.labels.tolist()) == {0.0: 300, 1.0: 300}
    assert texts.rows.shape[1] <= task.longest


@pytest.fixture
def batch():
    torch.manual_seed(0)
    lengths = torch.tensor([5, 3, 1])
    rows = torch.randint(2, 9, (3, 5)) * (torch.arange(5) < lengths[:, None])
    return Texts(rows, lengths, torch.tensor([0.0, 1.0, 1.0]))


@pytest.fixture
def model():
    torch.manual_seed(1)
    return AttentiveClassifier(AttentiveConfig(9, 6, 4)).double()


class Counted:
    counts = (0, 1, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("name", plan.ARMS)
def test_the_loss_of_an_arm_has_the_terms_that_its_name_says(name, model, batch):
    arm = plan.ARMS[name]
    batch = Texts(batch.rows, batch.lengths, batch.labels.double())
    words = training.Words(model, Counted() if arm.target == "words" else None)
    found = training.total(model, words, arm, batch).item()
    clean = training.binary_loss(model.answer(model.read(words(batch.rows), batch.lengths)), batch).item()
    if arm.target == "nothing":
        assert found == pytest.approx(clean)
    else:
        assert (found < 2 * clean) == (arm.rule == "iat_batch") or arm.rule == "random"
        still = training.total(model, words, replace(arm, radius=0.0), batch).item()
        assert still == pytest.approx(2 * clean)


def test_what_is_measured_is_what_its_name_says(model, batch):
    batch = Texts(batch.rows, batch.lengths, batch.labels.double())
    found = evaluation.measure(model.eval(), model.embed, batch, 0)
    reading = model.read(model.embed(batch.rows), batch.lengths)
    logits = model.answer(reading)[:, 0]
    assert found[evaluation.ACCURACY] == pytest.approx(((logits > 0) == batch.labels.bool()).double().mean().item())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, reading.scores, retain_graph=True)
    moved = reading.scores + Adversarial(5.0).step(reading.scores, gradient, ~reading.padding)
    right = (model.answer(reading, moved)[:, 0] > 0) == batch.labels.bool()
    assert found[evaluation.attacked(5.0)] == pytest.approx(right.double().mean().item())
    spread = [reading.scores[i, :n].std(correction=0).item() for i, n in enumerate(batch.lengths)]
    assert found[evaluation.SPREAD] == pytest.approx(sum(spread) / 3)
    weights = masked_softmax(reading.scores, reading.padding)
    assert weights[2].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "asset", "classes", "least"),
    [
        ("tweets", "tweet-sentiment", ("negative", "positive"), 6000),
        ("newsgroups", "orange-texts", ("baseball", "hockey"), 900),
    ],
)
def test_collections_that_are_fetched(name, asset, classes, least):
    if where(asset) is None:
        pytest.skip(f"asset {asset} was not fetched")
    found = labelled(name, offline=True)
    assert found.classes == classes
    assert min(Counter(found.labels).values()) > least
    assert len({tuple(words_of(text)) for text in found.texts}) == len(found)


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert judgement.verdict(rows(), plan.PLANS["default"]) == "shown"


A, V = plan.ADVERSARIAL, plan.VANILLA


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({(A, 1): 0.77}, f"attack 2: {A} drops at most 0.5 of {V} and less than {plan.RANDOM}"),
        ({(A, 2): 0.75}, f"attack 5: {A} drops at most 0.5 of {V} and less than {plan.RANDOM}"),
        ({(plan.RANDOM, 1): 0.795}, f"attack 2: {A} drops at most 0.5 of {V} and less than {plan.RANDOM}"),
        ({(A, 3): 0.70}, f"attack of 2 spreads: {A} drops less than {V}"),
        ({(A, 0): 0.77, (A, 1): 0.77, (A, 2): 0.77, (A, 3): 0.77}, f"{A} at most 2 points below {V}"),
    ],
)
def test_each_gate_can_fail_on_each_task(task, changed, demand):
    made = rows(changed.items(), task)
    (found,) = failed(made)
    assert found.startswith(task)
    assert found.endswith(demand)
    assert judgement.verdict(made, plan.PLANS["default"]) == "not shown"


def test_the_sweep_counts_on_tweets_alone():
    bent = {(plan.at(30.0), 0): 0.6}.items()
    (found,) = failed(rows(bent, "tweets"))
    assert "over radii" in found
    assert failed(rows(bent, "docstrings")) == []


def test_a_step_must_not_cost_more_than_twice_a_plain_one():
    made = [Row(plan.ADVERSARIAL, judgement.OVER_PLAIN, (2.3,)), *rows()[1:]]
    assert failed(made) == [f"a step of {A} takes at most 2.2 times the time of a plain one"]


def test_it_is_opposite_only_if_at_drops_more_on_every_task_in_every_seed():
    worse = {(A, 2): 0.6}.items()
    everywhere = [
        replace(row, values=(0.6, 0.6, 0.6)) if row.metric == METRICS[2] and row.arm.endswith(f": {A}") else row
        for row in rows()
    ]
    assert judgement.verdict(everywhere, plan.PLANS["default"]) == "opposite"
    assert judgement.verdict(rows(worse), plan.PLANS["default"]) == "not shown"


def test_all_arms_that_the_rule_names_are_trained_by_default():
    for name, task in plan.PLANS["default"].tasks.items():
        assert {plan.VANILLA, plan.RANDOM, plan.ADVERSARIAL} <= set(task.arms) <= set(plan.ARMS)
        if name == judgement.SWEPT:
            assert {f(radius) for f in (plan.at, plan.word_at) for radius in plan.SWEEP} <= set(task.arms)
    assert len(paper.SEEDS["default"]) == 5
