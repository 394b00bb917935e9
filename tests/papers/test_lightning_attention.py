"""The experiment of Lightning Attention: its arms, its machinery, and its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from papers.smoke import Smoke, smoke_run
from windeye.data import AssetUnavailable
from windeye.data.assets import find
from windeye.models import AttentionSpec
from windeye.nn.norms import SimpleRMSNorm
from windeye.papers import card, registry
from windeye.papers import lightning_attention as la
from windeye.papers.lightning_attention import arms, judgement, training
from windeye.papers.lightning_attention.plan import PLANS, Plan
from windeye.report import Row
from windeye.train import NonFinite

GAPS = {
    arms.TRANSFORMER: 0.05, arms.SOFTMAX_BODY: 0.01, arms.NO_POSITIONS: 0.2, arms.NO_DECAY: 0.1, arms.NO_LRPE: 0.005,
    arms.NO_FACTOR: 0.01, arms.NO_GATE: 0.02, arms.NO_NORM: 0.3, arms.PAPER_RATES: 0.1,
}  # fmt: skip
RANGES = {arms.TNL: 1.1, arms.TRANSFORMER: 3.0}


def rows(gaps: dict[str, object] | None = None, ranges: dict[str, float] | None = None) -> tuple[Row, ...]:
    """Rows under which the rule holds, but for the changes: one number, or one per seed."""
    made = []
    for arm, value in (GAPS | (gaps or {})).items():
        values = value if isinstance(value, tuple) else (value, value, value)
        made.append(Row(f"{arm} minus {arms.TNL}", judgement.GAP, values, "bits"))
    for arm, value in (RANGES | (ranges or {})).items():
        made.append(Row(arm, judgement.RANGE, (value, value, value), "x"))
    return tuple(made)


def failed(made: tuple[Row, ...]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    return smoke_run(la, tmp_path_factory.mktemp("lightning_attention"))


def test_smoke_has_every_arm_every_length_and_its_text(smoke: Smoke) -> None:
    evidence = smoke.evidence
    for arm in arms.ARMS:
        assert 0 < evidence.row(arm, judgement.BITS).mean <= 8.5
        assert evidence.row(arm, judgement.DIVERGED).mean == 0
    for arm in (arms.TNL, arms.TRANSFORMER):
        for n in PLANS["smoke"].lengths:
            assert evidence.row(arm, judgement.at(str(n))).mean > 0
        assert evidence.row(arm, judgement.RANGE).mean >= 1
    assert evidence.row("text: pydoc", "bytes held out").mean > 0
    assert len(smoke.parts) == len(arms.ARMS) + 1
    assert evidence.verdict == judgement.verdict(evidence.rows)
    assert [picture.content.startswith("<svg") for picture in evidence.pictures] == [True, True]


def test_differences_are_those_of_the_scores(smoke: Smoke) -> None:
    evidence = smoke.evidence
    for arm in arms.ARMS[1:]:
        gap = evidence.row(f"{arm} minus TNL", judgement.GAP).mean
        assert gap == pytest.approx(evidence.row(arm, judgement.BITS).mean - evidence.row("TNL", judgement.BITS).mean)


# The arms


def test_arms_have_equal_parameters_and_differ_in_what_they_are_named_for() -> None:
    counts = {arm: arms.parameters(arm) for arm in arms.ARMS}
    assert max(counts.values()) < 1.002 * min(counts.values())
    tnl = arms.config(arms.TNL)
    first, *others = tnl.mixers
    assert first.lrpe
    assert not any(spec.lrpe for spec in others)
    assert (tnl.norm, tnl.glu_activation, tnl.tied_head) == ("simple_rms", "none", False)
    assert all(isinstance(spec, AttentionSpec) for spec in arms.config(arms.SOFTMAX_BODY).mixers)
    assert arms.config(arms.SOFTMAX_BODY).norm == "simple_rms"
    assert arms.config(arms.TRANSFORMER).norm == "rms"
    assert len({arms.config(arm).init_std for arm in arms.ARMS}) == 1

    def mixers(arm: str) -> list[torch.nn.Module]:
        return [block.mixer for block in arms.build(arm, 0).blocks]

    assert all(mixer.rates is None for mixer in mixers(arms.NO_DECAY))
    assert mixers(arms.NO_DECAY)[0].lrpe is not None
    assert all(mixer.rates is None and mixer.lrpe is None for mixer in mixers(arms.NO_POSITIONS))
    assert all(mixer.lrpe is None and mixer.rates is not None for mixer in mixers(arms.NO_LRPE))
    assert len({mixer.rates for mixer in mixers(arms.NO_FACTOR)}) == 1
    assert len({mixer.rates for mixer in mixers(arms.TNL)}) == arms.LAYERS
    assert all(mixer.qkvu_proj.out_features == 3 * arms.DIM for mixer in mixers(arms.NO_GATE))
    assert all(isinstance(mixer.norm, torch.nn.Identity) for mixer in mixers(arms.NO_NORM))
    assert all(isinstance(mixer.norm, SimpleRMSNorm) for mixer in mixers(arms.NO_GATE))
    with pytest.raises(KeyError):
        arms.config("no such arm")


def test_without_decay_and_positions_a_layer_sees_a_set_and_with_decay_an_order() -> None:
    """The last token's output of one mixer, after its past was turned around."""
    tokens = torch.randn(1, 9, arms.DIM)
    turned = torch.cat((tokens[:, :8].flip(1), tokens[:, 8:]), dim=1)
    for arm, same in ((arms.NO_POSITIONS, True), (arms.NO_LRPE, False), (arms.NO_DECAY, False)):
        mixer = arms.build(arm, 0).blocks[0].mixer
        with torch.no_grad():
            assert torch.allclose(mixer(tokens)[:, 8], mixer(turned)[:, 8], atol=1e-5) == same, arm


def test_the_seed_alone_sets_weights_and_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (arms.build(arms.TNL, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


# The training


TINY = Plan(2, 2, 32, 2000, (32, 64), 32, 1)


def test_training_repeats_itself_and_learns() -> None:
    text = training.split(training.read(None, only_shipped=True)[1], TINY)
    first, second = (training.train(arms.TNL, text, TINY, 3, "cpu", lambda _: None) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    learned = training.train(arms.TNL, text, Plan(40, 4, 32, 2000, (32,), 32, 1), 3, "cpu", lambda _: None)
    assert learned["bits"] < first["bits"] - 1


def test_a_run_that_diverges_counts_as_the_uniform_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    text = training.split(training.read(None, only_shipped=True)[1], TINY)

    def diverge(*_arguments: object, progress: object, **_options: object) -> None:
        progress(0.5)
        raise NonFinite("the loss of step 2 is nan")

    monkeypatch.setattr(training, "fit", diverge)
    outcome = training.train(arms.NO_NORM, text, TINY, 0, "cpu", lambda _: None)
    assert (outcome["bits"], outcome["diverged"]) == (8.0, 2)


def test_a_loss_that_is_no_number_is_caught_in_a_real_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = training.split(training.read(None, only_shipped=True)[1], TINY)
    built = arms.build

    def broken(arm: str, seed: int) -> torch.nn.Module:
        model = built(arm, seed)
        model.head.weight.data.fill_(torch.nan)
        return model

    monkeypatch.setattr(training, "build", broken)
    assert training.train(arms.TNL, text, TINY, 0, "cpu", lambda _: None)["diverged"] == 1


def test_the_transformer_leaves_out_lengths_that_take_minutes() -> None:
    text = training.split(training.read(None, only_shipped=True)[1], TINY)
    found = training.speeds(text, TINY, 0, "cpu")
    assert list(found["tokens_per_second"][arms.TNL]) == ["32", "64"]
    assert list(found["tokens_per_second"][arms.TRANSFORMER]) == ["32"]
    assert found["over_shortest"][arms.TNL]["32"] == 1.0


def test_the_text_is_named_and_held_out_stretches_are_of_the_size_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.txt").write_bytes(b"abc" * 4000)
    name, tokens = training.read(tmp_path / "own.txt", only_shipped=False)
    assert (name, len(tokens)) == ("own.txt", 12_000)
    text = training.split(tokens, TINY)
    assert len(text.test) == training.STRETCHES
    assert sum(map(len, text.test)) == pytest.approx(TINY.held_out, rel=0.01)
    with pytest.raises(ValueError, match="at least 8000 bytes, got 100"):
        training.split(tokens[:100], TINY)

    usual = training.corpus

    def without_assets(name: str) -> torch.Tensor:
        if name == "austen":
            raise AssetUnavailable(find("jane-austen"), [], offline=True)
        return usual(name)

    monkeypatch.setattr(training, "corpus", without_assets)
    assert training.read(None, only_shipped=False)[0] == "pydoc and python"


# The rule


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"gaps": {arms.TRANSFORMER: -0.021}}, "above the transformer"),
        ({"gaps": {arms.NO_POSITIONS: (0.3, 0.049, 0.3)}}, "without decay and positions"),
        ({"gaps": {arms.NO_DECAY: (0.3, 0.0, -0.3)}}, "without decay above TNL"),
        ({"gaps": {arms.NO_LRPE: -0.03}}, "no LRPE"),
        ({"gaps": {arms.NO_FACTOR: -0.03}}, "no layer factor"),
        ({"gaps": {arms.NO_GATE: -0.03}}, "no gate"),
        ({"gaps": {arms.NO_NORM: -0.03}}, "no norm"),
        ({"ranges": {arms.TNL: 1.3}}, "TNL's training speed"),
        ({"ranges": {arms.TRANSFORMER: 1.9}}, "the transformer's varies"),
    ],
)
def test_each_gate_alone_prevents_shown(changed: dict[str, dict[str, object]], demand: str) -> None:
    broken = failed(rows(**changed))
    assert len(broken) == 1
    assert demand in broken[0]
    assert judgement.verdict(rows(**changed)) == "not shown"


def test_margins_are_inclusive() -> None:
    assert judgement.verdict(rows(gaps={arms.TRANSFORMER: -0.02})) == "shown"
    assert judgement.verdict(rows(gaps={arms.NO_POSITIONS: 0.05, arms.NO_GATE: -0.02})) == "shown"
    assert judgement.verdict(rows(ranges={arms.TRANSFORMER: 2.0})) == "shown"


def test_opposite_needs_every_seed_and_the_margin() -> None:
    assert judgement.verdict(rows(gaps={arms.TRANSFORMER: -0.06})) == "opposite"
    assert judgement.verdict(rows(gaps={arms.TRANSFORMER: (-0.3, -0.3, 0.01)})) == "not shown"
    assert judgement.verdict(rows(gaps={arms.TRANSFORMER: -0.05})) == "not shown"


def test_the_controls_decide_nothing() -> None:
    assert judgement.verdict(rows(gaps={arms.SOFTMAX_BODY: -1.0, arms.PAPER_RATES: -1.0})) == "shown"


def test_a_missing_row_is_an_error() -> None:
    for arm in (arms.TRANSFORMER, arms.NO_NORM):
        with pytest.raises(KeyError):
            judgement.verdict(tuple(row for row in rows() if row.arm != f"{arm} minus {arms.TNL}"))


def test_the_rule_states_its_margins() -> None:
    for number in ("0.02 bits", "0.05 bits", "1.3x", "2.0x", "512 to 32768", "up to 8192", "8 bits"):
        assert number in la.RULE


# The committed run


def test_the_committed_run_has_every_arm_with_its_size() -> None:
    evidence = registry.evidence_of(card.find("lightning-attention"))
    assert evidence is not None
    for arm in arms.ARMS:
        assert evidence.row(arm, judgement.BITS).n == 3
        assert evidence.row(arm, judgement.PARAMETERS).mean == arms.parameters(arm)


def test_the_argument_is_true_of_the_committed_run() -> None:
    evidence = registry.evidence_of(card.find("lightning-attention"))
    assert evidence is not None
    assert evidence.verdict == "not shown"
    broken = [check.demand for check in evidence.checks if not check.held]
    assert len(evidence.checks) == 9
    assert [text.split(":")[0] for text in broken] == [arms.NO_FACTOR]
    gaps = {arm: evidence.row(f"{arm} minus {arms.TNL}", judgement.GAP).values for arm in arms.ARMS[1:]}
    for arm in (arms.TRANSFORMER, arms.SOFTMAX_BODY):
        assert 0.029 < min(gaps[arm]) <= max(gaps[arm]) < 0.1
    assert min(gaps[arms.NO_POSITIONS]) > 1
    assert [round(gap, 1) for gap in gaps[arms.NO_DECAY]] == [0.9, 0.9, 0.9]
    assert min(*gaps[arms.NO_LRPE], *gaps[arms.NO_NORM]) > 0.2
    assert min(gaps[arms.NO_GATE]) > 0.06
    assert -0.055 < min(gaps[arms.NO_FACTOR]) <= max(gaps[arms.NO_FACTOR]) < -0.03
    assert max(evidence.row(arms.TNL, judgement.RANGE).values) < judgement.FLAT
    assert min(evidence.row(arms.TRANSFORMER, judgement.RANGE).values) > judgement.FALLS
    last = [block.mixer.rates for block in arms.build(arms.TNL, 0).blocks][-1]
    assert max(last) * PLANS["default"].window < 1e-2
