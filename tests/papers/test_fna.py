"""The experiment of Faster Neighborhood Attention: its machinery, its measure of shifts, and its rule."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

import windeye
from papers.smoke import Smoke, smoke_run
from windeye.papers import fna
from windeye.report import Row

GOOD = {"full": 0.95, "NA": 0.950, "NA+dilated": 0.952, "blocks": 0.90, "NA permuted": 0.93}
SHIFTS = {"full": 0.5, "NA": 1e-15, "NA+dilated": 1e-15, "blocks": 0.8, "NA permuted": 0.9}
SHARES = {"full": 1.0, "NA": 9 / 64, "NA+dilated": 9 / 64, "blocks": 0.25, "NA permuted": 9 / 64}


def rows(**changed: dict[str, object]) -> tuple[Row, ...]:
    """Rows under which the rule holds, but for the changes: one number, or one per seed."""
    made = []
    for key, metric, usual in (
        ("accuracy", fna.ACCURACY, GOOD),
        ("share", fna.SHARE, SHARES),
        ("shift", fna.SHIFT, SHIFTS),
    ):
        for arm, value in (usual | changed.get(key, {})).items():
            made.append(Row(arm, metric, value if isinstance(value, tuple) else (value, value, value)))
    return tuple(made)


def failed(made: tuple[Row, ...]) -> list[str]:
    return [check.demand for check in fna.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    return smoke_run(fna, tmp_path_factory.mktemp("fna"))


def test_smoke_has_every_arm_with_equal_parameters(smoke: Smoke) -> None:
    evidence = smoke.evidence
    assert {row.arm for row in evidence.rows if row.metric == fna.ACCURACY} == {arm.name for arm in fna.ARMS}
    assert len({evidence.row(arm.name, "parameters").values for arm in fna.ARMS}) == 1
    assert len(smoke.parts) == len(fna.ARMS)
    assert all(0 <= evidence.row(arm.name, fna.ACCURACY).mean <= 1 for arm in fna.ARMS)
    assert evidence.verdict == fna.verdict(evidence.rows)
    assert len(evidence.pictures) == 1


def test_paired_differences_are_rows(smoke: Smoke) -> None:
    evidence = smoke.evidence
    gap = evidence.row("NA minus blocks", "paired accuracy difference").mean
    expected = evidence.row("NA", fna.ACCURACY).mean - evidence.row("blocks", fna.ACCURACY).mean
    assert gap == pytest.approx(100 * expected)


def test_smoke_shift_errors_are_those_of_the_mechanism(smoke: Smoke) -> None:
    evidence = smoke.evidence
    for arm in ("NA", "NA+dilated"):
        assert max(evidence.row(arm, fna.SHIFT).values) < fna.EXACT
    for arm in ("blocks", "full", "NA permuted"):
        assert min(evidence.row(arm, fna.SHIFT).values) > 1e-3


def test_arms_of_one_seed_start_from_the_same_weights() -> None:
    states = []
    for arm in fna.ARMS:
        torch.manual_seed(3)
        states.append(fna.Classifier(arm).state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_training_repeats_itself_and_learns() -> None:
    images, labels = fna.digits()
    plan = fna.Plan(epochs=1, trains=50, tests=20)
    first, second = (fna.train(fna.ARMS[1], images, labels, plan, 5, "cpu", lambda _: None) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}

    torch.manual_seed(0)
    model = fna.Classifier(fna.ARMS[2])
    optimiser = torch.optim.AdamW(model.parameters(), lr=fna.RATE)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(images[:20]), labels[:20])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_shuffle_goes_back_and_destroys_locality() -> None:
    tokens = torch.arange(64.0).reshape(1, 8, 8, 1)
    assert not torch.equal(fna.shuffle(tokens), tokens)
    assert torch.equal(fna.shuffle(fna.shuffle(tokens), back=True), tokens)
    assert torch.equal(fna.shuffle(tokens), fna.shuffle(tokens))
    beside = (fna.shuffle(tokens)[0, :, 1:, 0] - fna.shuffle(tokens)[0, :, :-1, 0]).abs()
    assert (beside == 1).float().mean() < 0.1


def test_the_shift_measure_sees_a_window_of_another_place() -> None:
    """One layer of blocks among neighbourhoods is enough to be found."""
    torch.manual_seed(0)
    mixed = replace(fna.ARMS[1], layers=(fna.LOCAL, fna.LOCAL, windeye.Blocks(4), fna.LOCAL))
    assert fna.shift_error(fna.Classifier(mixed)) > 1e-3
    assert fna.shift_error(fna.Classifier(fna.ARMS[1])) < fna.EXACT


def test_flop_shares() -> None:
    shares = {arm.name: fna.flop_share(arm) for arm in fna.ARMS}
    assert shares["NA"] == shares["NA+dilated"] == shares["NA permuted"] == Fraction(9, 64)
    assert shares["blocks"] == Fraction(16, 64)
    assert shares["full"] == 1


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert fna.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"accuracy": {"NA": 0.96}}, "NA+dilated at least NA"),
        ({"accuracy": {"NA": 0.948, "blocks": 0.9535, "NA+dilated": 0.954}}, "NA at least blocks"),
        ({"accuracy": {"NA": 0.952, "blocks": 0.952}}, "NA+dilated above blocks"),
        ({"accuracy": {"full": 0.963}}, "within 1.0 point of full"),
        ({"share": {"NA": 0.15}}, "NA needs 9/64"),
        ({"share": {"NA+dilated": 0.15}}, "NA+dilated needs 9/64"),
        ({"shift": {"NA": (1e-15, 1e-15, 1e-9)}}, "NA: interior shift error"),
        ({"shift": {"NA+dilated": 1e-9}}, "NA+dilated: interior shift error"),
        ({"shift": {"blocks": (0.8, 0.05, 0.9)}}, "blocks: interior shift error"),
    ],
)
def test_each_gate_alone_prevents_shown(changed: dict[str, dict[str, object]], demand: str) -> None:
    made = rows(**changed)
    broken = failed(made)
    assert len(broken) == 1
    assert demand in broken[0]
    assert fna.verdict(made) == "not shown"


def test_margins_are_inclusive() -> None:
    assert fna.verdict(rows(accuracy={"NA": 0.957})) == "shown"
    assert fna.verdict(rows(accuracy={"full": 0.962})) == "shown"
    assert fna.verdict(rows(accuracy={"NA": 0.9571})) == "not shown"


def test_opposite_needs_every_seed_and_more_than_the_margin() -> None:
    assert fna.verdict(rows(accuracy={"blocks": 0.96})) == "opposite"
    assert fna.verdict(rows(accuracy={"blocks": (0.98, 0.98, 0.951)})) == "not shown"
    assert fna.verdict(rows(accuracy={"blocks": 0.956})) == "not shown"


def test_the_control_decides_nothing() -> None:
    assert fna.verdict(rows(accuracy={"NA permuted": 0.99})) == "shown"


def test_a_missing_row_is_an_error() -> None:
    with pytest.raises(KeyError):
        fna.verdict(tuple(row for row in rows() if row.arm != "blocks"))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"windeye\[experiments\]"):
        fna.digits()
