"""The experiment of Lightning Attention-2: its forms, its measures, and its rule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import windeye
from papers.smoke import Smoke, smoke_run
from windeye.papers import card, registry
from windeye.papers import lightning_attention_2 as la2
from windeye.papers.lightning_attention_2 import judgement, memory, speed, training
from windeye.papers.lightning_attention_2.plan import LENGTHS, LONGEST, PARALLEL, PLANS, SDPA, Plan
from windeye.report import Row

AGREE, OTHER = f"{training.BLOCKS} against {training.PAIRS}", f"{training.OTHER} against {training.PAIRS}"
NUMBERS = {
    (AGREE, judgement.APART): 1e-5,
    (OTHER, judgement.APART): 0.05,
    (speed.KERNEL, judgement.RANGE): 1.1,
    (speed.KERNEL, judgement.ERROR): 1e-6,
    (speed.KERNEL, judgement.at(judgement.STREAM, 1 << 16)): 20.0,
    (speed.KERNEL, judgement.at(judgement.STREAM, 1 << 20)): 21.0,
    (speed.KERNEL, judgement.at(judgement.PASS, 4096)): 2.0,
    (speed.KERNEL, judgement.at(judgement.PASS, 16384)): 2.0,
    (PARALLEL, judgement.at(judgement.PASS, 1024)): 100.0,
    (PARALLEL, judgement.at(judgement.PASS, 4096)): 1600.0,
}
OVER = {
    **{(PARALLEL, n): 2.0 * (n / 512) ** 0.9 for n in LENGTHS[:4]},
    **{(SDPA, n): 4.0 * (n / 512) ** 0.9 for n in LENGTHS[:6]},
}


def rows(numbers: dict[tuple[str, str], object] | None = None, over: dict[tuple[str, int], object] | None = None):
    """Rows under which the rule holds, but for the changes: one number, or one per seed."""
    wanted = NUMBERS | (numbers or {})
    wanted |= {(form, judgement.at(judgement.OVER, n)): value for (form, n), value in (OVER | (over or {})).items()}
    return tuple(
        Row(arm, metric, value if isinstance(value, tuple) else (value, value, value))
        for (arm, metric), value in wanted.items()
    )


def failed(made: tuple[Row, ...]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    with pytest.MonkeyPatch.context() as patch:
        # A fresh Python takes seconds to start: six of them are what the smoke run of the command line does.
        patch.setattr(memory, "peak_extra_bytes", lambda code: len(code) << 20)
        return smoke_run(la2, tmp_path_factory.mktemp("lightning_attention_2"))


def test_smoke_has_every_form_at_every_length_it_is_measured_at(smoke: Smoke) -> None:
    evidence = smoke.evidence
    plan = PLANS["smoke"]
    for form in speed.FORMS:
        for n in plan.lengths:
            if n <= plan.longest.get(form, n):
                assert evidence.row(form, judgement.at(judgement.SPEED, n)).mean > 0
            else:
                with pytest.raises(KeyError):
                    evidence.row(form, judgement.at(judgement.SPEED, n))
    assert evidence.row(speed.KERNEL, judgement.RANGE).mean >= 1
    assert evidence.row(AGREE, judgement.APART).mean < judgement.SAME
    assert evidence.row(speed.KERNEL, judgement.ERROR).mean < judgement.STREAMED
    assert len(smoke.parts) == len(training.FORMS) + 2
    assert len(evidence.checks) == 9
    assert [picture.content.startswith("<svg") for picture in evidence.pictures] == [True, True]


# The forms


def test_what_is_timed_is_one_function_in_three_forms_with_the_same_gradients() -> None:
    expected = speed.one_pass(PARALLEL, 70)()
    for form in (speed.KERNEL, speed.TORCH):
        for ours, theirs in zip(speed.one_pass(form, 70)(), expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max()), form


def test_softmax_attention_gets_the_same_numbers_in_its_own_layout() -> None:
    q, k, v, _ = speed.inputs(40)
    out = speed.one_pass(SDPA, 40)()[0]
    expected = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
    assert torch.allclose(out, expected, atol=1e-6)


def test_the_model_is_transnormers_mixer_in_either_form_and_another_with_other_rates() -> None:
    x = torch.randn(1, 50, training.DIM)
    outs = {}
    for arm in training.FORMS:
        torch.manual_seed(1)
        outs[arm] = training.Mixer(arm, layer=0)(x)
    assert torch.allclose(outs[training.BLOCKS], outs[training.PAIRS], atol=1e-6)
    assert not torch.allclose(outs[training.OTHER], outs[training.PAIRS], atol=1e-4)

    torch.manual_seed(1)
    mixer = training.Mixer(training.BLOCKS, layer=0)
    layer = windeye.nn.LightningAttention(
        training.DIM, training.HEADS, windeye.decay.tnl_rates(training.HEADS, 0, training.LAYERS)
    )
    layer.load_state_dict({"qkvu_proj.weight": mixer.qkvu.weight, "out_proj.weight": mixer.out.weight})
    assert torch.allclose(layer(x), outs[training.BLOCKS], atol=1e-6)


def test_arms_of_one_seed_start_alike_and_training_repeats_itself() -> None:
    plan = Plan(2, 2, 32, (64,), {}, 1, 1, (64, 256), (64, 256), 32)
    first, second, pairs = (
        training.train(arm, plan, 5, lambda _: None)["losses"]
        for arm in (training.BLOCKS, training.BLOCKS, training.PAIRS)
    )
    assert first == second
    assert first == pytest.approx(pairs, abs=1e-5)
    assert len(first) == 2


# The streams


def test_a_stream_in_pieces_has_the_state_of_one_pass() -> None:
    whole = [torch.cat(parts, dim=1) for parts in zip(*memory.pieces(96, 16), strict=True)]
    decay = -windeye.decay.tnl_rates(speed.HEADS, layer=12, layers=24).float()
    _, expected = windeye.linear_attention(*whole, log_decay=decay, return_state=True)
    assert torch.allclose(memory.stream(96, 16), expected, atol=1e-4)
    assert memory.stream_error(96, 16) < 1e-5


def test_a_stream_that_forgets_its_state_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = windeye.linear_attention

    def forgetful(*tensors: torch.Tensor, initial_state: object = None, **options: object) -> object:
        del initial_state
        return right(*tensors, **options)

    monkeypatch.setattr(windeye, "linear_attention", forgetful)
    assert memory.stream_error(96, 16) > 1e-2


# The measures


def test_the_crossover_is_where_a_form_stays_slower() -> None:
    assert judgement.crossover({512: 2.0, 1024: 3.0}) == 512
    assert judgement.crossover({512: 2.0, 1024: 0.9, 2048: 1.1, 4096: 5.0}) == 2048
    assert judgement.crossover({512: 2.0, 1024: 1.0}) is None


def test_the_fall_per_doubling_counts_from_the_crossover() -> None:
    over = {512: 0.5, 1024: 2.0, 2048: 4.0, 4096: 8.0}
    made = tuple(Row(SDPA, judgement.at(judgement.OVER, n), (value,)) for n, value in over.items())
    assert judgement.per_doubling(made, SDPA) == pytest.approx(2.0)


# The rule


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


SLOW_TO_FALL = {(SDPA, n): 4.0 * (n / 512) ** 0.6 for n in LENGTHS[:6]}


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"numbers": {(AGREE, judgement.APART): (1e-5, 2e-3, 1e-5)}}, "losses of blocks"),
        ({"numbers": {(OTHER, judgement.APART): (0.05, 5e-4, 0.05)}}, "rates 5% faster"),
        ({"numbers": {(speed.KERNEL, judgement.RANGE): 1.3}}, "the kernel's speed varies"),
        ({"over": SLOW_TO_FALL}, "causal SDPA loses"),
        ({"over": {(PARALLEL, 4096): 5.0}}, "parallel form loses"),
        ({"over": {(PARALLEL, n): 0.5 for n in LENGTHS[:4]}}, "parallel form loses"),
        ({"numbers": {(speed.KERNEL, judgement.ERROR): 2e-4}}, "a stream in pieces"),
        ({"numbers": {(speed.KERNEL, judgement.at(judgement.STREAM, 1 << 20)): 25.0}}, "a longer stream"),
        ({"numbers": {(speed.KERNEL, judgement.at(judgement.PASS, 16384)): 12.5}}, "at most linearly"),
        ({"numbers": {(PARALLEL, judgement.at(judgement.PASS, 4096)): 900.0}}, "parallel form's memory"),
    ],
)
def test_each_gate_alone_prevents_shown(changed: dict[str, dict[object, object]], demand: str) -> None:
    broken = failed(rows(**changed))
    assert len(broken) == 1
    assert demand in broken[0]
    assert judgement.verdict(rows(**changed)) == "not shown"


def test_opposite_only_if_softmax_attention_is_never_slower() -> None:
    never = {(SDPA, n): 0.9 for n in LENGTHS[:6]}
    assert judgement.verdict(rows(over=never)) == "opposite"
    assert judgement.verdict(rows(over=never | {(SDPA, 16384): (0.9, 1.2, 0.9)})) == "not shown"


def test_memory_that_the_system_does_not_tell_fails_its_gates() -> None:
    measured = tuple(row for row in rows() if not row.metric.startswith((judgement.PASS, judgement.STREAM)))
    assert len(failed(measured)) == 3
    assert judgement.verdict(measured) == "not shown"


def test_a_missing_row_is_an_error() -> None:
    for metric in (judgement.APART, judgement.RANGE, judgement.ERROR, judgement.OVER):
        with pytest.raises(KeyError):
            judgement.verdict(tuple(row for row in rows() if not row.metric.startswith(metric)))


def test_the_rule_states_its_margins() -> None:
    for number in ("0.001 nats", "1.3x", "512 to 32768", "1.6x", "0.0001", "1048576", "65536", "4 MiB", "10-fold"):
        assert number in la2.RULE
    for number in (str(LONGEST[PARALLEL]), str(LONGEST[SDPA])):
        assert number in la2.LIMITS


# The committed run


def test_the_committed_run_has_every_form_at_every_length_it_is_measured_at() -> None:
    evidence = registry.evidence_of(card.find("lightning-attention-2"))
    assert evidence is not None
    assert evidence.row(AGREE, judgement.APART).n == evidence.row(speed.KERNEL, judgement.RANGE).n == 3
    for form in speed.FORMS:
        for n in LENGTHS:
            assert (n <= LONGEST.get(form, n)) == any(
                (row.arm, row.metric) == (form, judgement.at(judgement.SPEED, n)) for row in evidence.rows
            )
