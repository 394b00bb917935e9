"""The experiment of Titans: its arms, its control that does not write, and its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data.tasks import IGNORED
from windeye.papers import titans
from windeye.report import Row

GOOD = {
    "full attention": 0.5, "window 8": 0.05, "MAG, memory not written": 0.06, "LMM": 0.9, "MAC": 0.8, "MAG": 0.85,
    "MAL": 0.9, "LMM, linear memory": 0.9, "LMM, no momentum": 0.9, "LMM, no forgetting": 0.9,
    "LMM, no convolution": 0.5,
}  # fmt: skip


def rows(**changed):
    """Rows under which the rule holds, but for the changes, by the names of arms without punctuation."""
    values = {name: changed.get("".join(filter(str.isalnum, name)), usual) for name, usual in GOOD.items()}
    return [Row(arm, titans.ACCURACY, v if isinstance(v, tuple) else (v, v, v)) for arm, v in values.items()]


def failed(made):
    return [check.demand for check in titans.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(titans, tmp_path_factory.mktemp("titans"))


def test_every_arm_leaves_its_accuracy_and_its_state(smoke):
    evidence = smoke.evidence
    assert set(GOOD) == set(titans.ARMS)
    for name in titans.ARMS:
        assert 0 <= evidence.row(name, titans.ACCURACY).mean <= 1
        assert evidence.row(name, titans.STATE).mean > 0
        assert evidence.row(name, "diverged").mean == 0
    assert evidence.verdict == titans.verdict(evidence.rows)


def test_the_control_writes_nothing_and_is_otherwise_the_gate():
    plan = titans.PLANS["default"]
    model = plan.model(titans.ARMS[titans.UNWRITTEN], 0)
    tokens, _ = plan.held_out_examples(0)
    _, state = model(tokens[:4], return_state=True)
    memory = state.layers[1].layers[1].layers[1]
    _, fresh = model.blocks[1].mixer.memory.begin(None, 1)
    kept = (1 - torch.sigmoid(torch.tensor(-5.0))) ** (plan.task.length + 4)
    first = fresh.layers[1].weights
    # Up to forgetting, which moves with the input a little, the weights are those before the first token.
    shares = (memory.weights * first).sum(-1) / first.square().sum(-1)
    torch.testing.assert_close(
        memory.weights, shares[..., None] * first.expand_as(memory.weights), rtol=1e-4, atol=1e-6
    )
    assert (shares / kept - 1).abs().max() < 0.5
    counted = {
        name: sum(p.numel() for p in plan.model(titans.ARMS[name], 0).parameters())
        for name in ("MAG", titans.UNWRITTEN)
    }
    assert counted["MAG"] == counted[titans.UNWRITTEN]


def test_what_is_within_reach_is_counted_pair_by_pair():
    plan = titans.PLANS["default"]
    tokens, targets = plan.held_out_examples(3)
    found = []
    for sequence, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        for place, value in enumerate(asked):
            if value != IGNORED:
                written = sequence.index(sequence[place])
                found.append(any(place - titans.WINDOW < seen <= place for seen in (written + 1, written + 2)))
    assert plan.within_reach(3, titans.WINDOW) == pytest.approx(sum(found) / len(found))
    assert plan.within_reach(3, titans.WINDOW) < 0.1


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert titans.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        *(
            ({name: 0.3}, f"{name} at least 30 points above window 8 and above MAG, memory not written")
            for name in titans.MEMORIES
        ),
        ({"MAGmemorynotwritten": 0.2}, "MAG, memory not written: at most 10 points above window 8"),
    ],
)
def test_each_gate_can_fail(changed, demand):
    made = rows(**changed)
    assert demand in failed(made)
    assert titans.verdict(made) == "not shown"


def test_ablations_and_full_attention_decide_nothing():
    assert titans.verdict(rows(fullattention=0.0, LMMlinearmemory=0.0, LMMnomomentum=0.0)) == "shown"


def test_it_is_opposite_only_if_the_window_wins_against_all_in_every_seed():
    low = dict.fromkeys(titans.MEMORIES, 0.01)
    assert titans.verdict(rows(**low)) == "opposite"
    assert titans.verdict(rows(**low | {"MAL": (0.01, 0.01, 0.9)})) == "not shown"
