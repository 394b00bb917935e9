"""The experiment of Based: its arms, what windows can reach, and its rule."""

import pytest

from papers.smoke import smoke_run
from windeye.data.tasks import IGNORED
from windeye.papers import based, registry
from windeye.papers.card import find
from windeye.report import Row

GOOD = {
    "attention": 1.0, "Based, f=4": 0.8, "Based, f=8": 0.95, "Based, f=16": 0.99, "window 8": 0.04, "window 16": 0.14,
    "window 32": 0.53, "window 64": 0.99, "1+elu linear attention": 0.5, "convolution only": 0.02,
}  # fmt: skip


def rows(**changed):
    """Rows under which the rule holds, but for the changes, by the names of arms without punctuation."""
    values = {name: changed.get("".join(filter(str.isalnum, name)), usual) for name, usual in GOOD.items()}
    return [Row(arm, based.ACCURACY, v if isinstance(v, tuple) else (v, v, v)) for arm, v in values.items()]


def failed(made):
    return [check.demand for check in based.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(based, tmp_path_factory.mktemp("based"))


def test_every_arm_leaves_its_accuracy_and_its_state(smoke):
    evidence = smoke.evidence
    assert set(GOOD) == set(based.ARMS)
    for name in based.ARMS:
        assert 0 <= evidence.row(name, based.ACCURACY).mean <= 1
        assert evidence.row(name, based.STATE).mean > 0
        assert evidence.row(name, "rate").mean in based.PLANS["smoke"].rates
    assert evidence.verdict == based.verdict(evidence.rows)
    assert evidence.pictures[0].content.startswith("<svg")


def test_states_are_those_of_the_formulas():
    """Numbers of 4 bytes, width 64: two tokens of the convolution; keys and values; Taylor sums with a denominator."""
    plan, convolution = based.PLANS["default"], 2 * 64

    def numbers(arm):
        return plan.model(based.ARMS[arm], 0).state_bytes(plan.task.length) / 4 - convolution

    assert numbers("attention") == 2 * 64 * plan.task.length
    assert numbers("window 16") == 2 * 64 * 15
    for f in based.FEATURES:
        assert numbers(f"Based, f={f}") == (1 + f + f * (f + 1) // 2) * 65 + 2 * 64 * 15
    assert numbers("1+elu linear attention") == 64 * 64
    assert numbers("convolution only") == convolution


@pytest.mark.parametrize("size", [1, 2, 8, 16, 32, 64])
def test_what_is_within_reach_is_counted_pair_by_pair(size):
    plan = based.PLANS["default"]
    tokens, targets = plan.held_out_examples(3)
    found = []
    for sequence, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        for place, value in enumerate(asked):
            if value != IGNORED:
                written = sequence.index(sequence[place])
                assert sequence[written + 1] == value
                # The value stands one after the key, and the convolution carries both one further.
                found.append(any(place - size < seen <= place for seen in (written + 1, written + 2)))
    assert plan.within_reach(3, size) == pytest.approx(sum(found) / len(found))


def test_a_longer_window_reaches_more_and_the_whole_length_everything():
    reach = [based.PLANS["default"].within_reach(0, size) for size in based.WINDOWS]
    assert reach == sorted(reach)
    assert reach[0] < 0.1
    assert reach[-1] == 1.0


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert based.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"attention": 0.9}, "attention recalls at least 95 %"),
        ({"Basedf4": 0.2}, "Based, f=4: at least 10 points above window 16, at most 3 above attention"),
        ({"Basedf8": 0.76}, "no less with more features (margin 3 points), more in all"),
        ({"Basedf16": 0.79}, "no less with more features (margin 3 points), more in all"),
        ({"window32": 0.1}, "no less with larger windows (margin 3 points), more in all"),
        ({"Basedf4": 0.5, "Basedf8": 0.6, "Basedf16": 0.7}, "Based, f=16 at most 20 points below attention"),
        ({"convolutiononly": 0.3}, "convolution only lowest (margin 3 points)"),
    ],
)
def test_each_gate_can_fail(changed, demand):
    made = rows(**changed)
    assert demand in failed(made)
    assert based.verdict(made) == "not shown"


def test_small_steps_down_are_within_the_margin():
    assert failed(rows(Basedf8=0.78, Basedf16=0.81, window16=0.04, convolutiononly=0.05)) == []


def test_it_is_opposite_only_if_the_window_wins_with_every_seed():
    assert based.verdict(rows(Basedf16=0.1)) == "opposite"
    assert based.verdict(rows(Basedf16=(0.1, 0.1, 0.2))) == "not shown"


def test_what_the_limits_say_was_seen():
    evidence = registry.evidence_of(find("based"))
    assert evidence is not None
    elu, eight = (evidence.row(arm, based.ACCURACY).mean for arm in (based.ELU, based.based(8)))
    assert 0 < eight - elu < 0.02
    assert evidence.row(based.ELU, based.STATE).mean < evidence.row(based.based(8), based.STATE).mean
    for size in (16, 32):
        recalled = evidence.row(based.window(size), based.ACCURACY).values
        reach = evidence.row(based.window(size), based.REACH).values
        assert sorted(a > 0.95 * b for a, b in zip(recalled, reach, strict=True)) == [False, False, True]
