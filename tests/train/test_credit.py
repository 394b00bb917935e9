"""Credit of single tokens: exact shares, the rhythm's sets, and what reaches a trainer."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import golden
from oracles import rhythm as oracle
from windeye.train import credit
from windeye.train.credit import (
    boosted,
    coupled_rhythm,
    credited,
    for_openrlhf,
    for_roll,
    for_trl,
    for_verl,
    global_anchor,
    jumps,
    local_chunk,
    top,
)

CASES = ["basic_gqa", "left_pad_window_short_horizon", "softcap_sink", "alibi_horizon_past_end"]


def everything(signal: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(signal, dtype=torch.bool)


@st.composite
def responses(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[range]]:
    """WAAD and FAI of up to three responses inside padded rows, with few distinct values, so that there are ties."""
    length = draw(st.integers(1, 14))
    rows = draw(st.integers(1, 3))
    spans = []
    for _ in range(rows):
        first = draw(st.integers(0, length - 1))
        spans.append(range(first, draw(st.integers(first + 1, length))))
    levels = st.lists(st.integers(0, 4), min_size=rows * length, max_size=rows * length)
    waad, fai = (torch.tensor(draw(levels), dtype=torch.float64).view(rows, length) / 4 for _ in range(2))
    mask = torch.tensor([[t in span for t in range(length)] for span in spans])
    return waad.masked_fill(~mask, math.nan), fai.masked_fill(~mask, math.nan), mask, spans


shares = st.sampled_from([0.05, 0.2, 0.4, 0.5, 1.0])


@given(responses(), shares, st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_rules_equal_their_sets_whatever_surrounds_the_response(made, share, reach, transfer):
    waad, fai, mask, spans = made
    local = local_chunk(waad, mask, share=share)
    anchors = global_anchor(fai, mask, share=share)
    both = coupled_rhythm(waad, fai, mask, share=share, reach=reach, transfer=transfer)
    for row, span in enumerate(spans):
        w, f = (signal[row, list(span)].tolist() for signal in (waad, fai))
        jumped, consulted = oracle.top_set(oracle.deltas(w), share), oracle.top_set(f, share)
        assert local[row, list(span)].tolist() == [1.5 if t in jumped else 1.0 for t in range(len(w))]
        assert anchors[row, list(span)].tolist() == [1.5 if t in consulted else 1.0 for t in range(len(w))]
        assert both[row, list(span)].tolist() == pytest.approx(
            oracle.coupled(w, f, share, 1.5, reach, transfer), abs=1e-12
        )
    for gamma in (local, anchors, both):
        assert bool((gamma[~mask] == 1).all())
        assert bool((gamma >= 1).all())


@given(responses(), shares)
def test_exactly_the_share_rounded_up_is_boosted(made, share):
    waad, fai, mask, spans = made
    counts = [math.ceil(round(share * len(span), 9)) for span in spans]
    assert (local_chunk(waad, mask, share=share) > 1).sum(dim=1).tolist() == counts
    assert (global_anchor(fai, mask, share=share) > 1).sum(dim=1).tolist() == counts


@given(responses(), shares, st.sampled_from([0.0, 0.5, 1.0]))
def test_the_credit_of_the_coupled_rule_adds_up(made, share, transfer):
    waad, fai, mask, spans = made
    gamma = coupled_rhythm(waad, fai, mask, share=share, transfer=transfer)
    for row, span in enumerate(spans):
        w, f = (signal[row, list(span)].tolist() for signal in (waad, fai))
        dominated, introducers = oracle.dominated_and_introducers(w, f, share, 3)
        free = len(oracle.top_set(f, share) - dominated)
        expected = 0.5 * (free + (1 - transfer) * len(dominated) + transfer * len(introducers))
        assert float((gamma[row] - 1).sum()) == pytest.approx(expected, abs=1e-12)


@given(responses())
def test_without_dominated_anchors_the_coupled_rule_is_the_global_one(made):
    waad, fai, mask, _ = made
    assert torch.equal(coupled_rhythm(waad, fai, mask, jump_threshold=math.inf), global_anchor(fai, mask))


def test_a_token_that_is_anchor_and_introducer_gets_both():
    waad = torch.tensor([[1.0, 8.0, 1.0, 1.0, 1.0]])
    fai = torch.tensor([[0.0, 0.6, 0.5, 0.0, 0.0]])
    assert coupled_rhythm(waad, fai, everything(fai)).tolist() == [[1.0, 1.75, 1.25, 1.0, 1.0]]


def test_two_anchors_with_one_introducer_pay_it_once():
    waad = torch.tensor([[1.0, 8.0, 1.0, 1.0, 1.0]])
    fai = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.0]])
    assert coupled_rhythm(waad, fai, everything(fai)).tolist() == [[1.0, 1.25, 1.25, 1.25, 1.0]]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.7])
def test_a_share_that_meets_a_whole_number_is_not_rounded_beyond_it(share):
    n = 15
    chosen = top(torch.rand(1, n), torch.ones(1, n, dtype=torch.bool), share)
    assert int(chosen.sum()) == -(-round(share * 100) * n // 100)


def test_jumps_do_not_look_across_the_end_of_a_turn():
    waad = torch.tensor([[1.0, 3.0, 9.0, 2.0]])
    assert jumps(waad, torch.tensor([[True, True, False, True]])).tolist() == [[2.0, 0.0, 0.0, 0.0]]


def test_factors_have_no_gradient_and_the_type_of_the_signal():
    waad = torch.rand(2, 9, dtype=torch.float64, requires_grad=True)
    for gamma in (
        local_chunk(waad, everything(waad)),
        global_anchor(waad, everything(waad)),
        coupled_rhythm(waad, waad.flip(1), everything(waad)),
    ):
        assert gamma.dtype == torch.float64
        assert not gamma.requires_grad


def test_amplification_one_leaves_advantages_bit_for_bit():
    waad, fai, adv = torch.rand(3, 40), torch.rand(3, 40), torch.randn(3, 40)
    for gamma in (
        local_chunk(waad, everything(waad), amplification=1.0),
        global_anchor(fai, everything(fai), amplification=1.0),
        coupled_rhythm(waad, fai, everything(fai), amplification=1.0),
    ):
        assert torch.equal(credited(adv, gamma, everything(fai)), adv)


@pytest.mark.parametrize(
    ("sign", "expected"), [("both", [3.0, -3.0]), ("positive", [3.0, -2.0]), ("negative", [2.0, -3.0])]
)
def test_the_sign_says_which_advantages_are_scaled(sign, expected):
    adv = torch.tensor([[2.0, -2.0]])
    assert credited(adv, torch.full((1, 2), 1.5), everything(adv), sign=sign).tolist() == [expected]


def test_renormalised_credit_has_mean_one_over_the_response():
    gamma = boosted(torch.tensor([[True, False, True, True]]), 2.0)
    response = torch.tensor([[True, True, True, False]])
    scaled = credited(torch.ones(1), gamma, response, renormalise=True)
    assert scaled[0, :3].mean().item() == pytest.approx(1.0)
    assert (scaled[0, 0] / scaled[0, 1]).item() == pytest.approx(2.0)
    assert scaled[0, 3] == 1.0


@pytest.mark.parametrize("case", CASES)
def test_gamma_equals_the_published_equations(case):
    meta, numbers = golden.load("preplan-anchor", case)
    waad, fai = numbers["output.waad"][None], numbers["output.fai"][None]
    mask = everything(waad)
    share, amplification = meta["q"], meta["amp"]
    golden.same(jumps(waad, mask)[0], numbers["output.delta"])
    for signal, name in ((jumps(waad, mask), "output.top_local"), (fai, "output.top_global")):
        assert top(signal, mask, share)[0].nonzero().flatten().tolist() == sorted(numbers[name].tolist())
    golden.same(local_chunk(waad, mask, share=share, amplification=amplification)[0], numbers["output.gamma_local"])
    golden.same(global_anchor(fai, mask, share=share, amplification=amplification)[0], numbers["output.gamma_global"])
    both = coupled_rhythm(
        waad, fai, mask, share=share, amplification=amplification, reach=meta["k"], transfer=meta["alpha"]
    )
    golden.same(both[0], numbers["output.gamma_coupled"])
    dominated, introducers = oracle.dominated_and_introducers(waad[0].tolist(), fai[0].tolist(), share, meta["k"])
    assert sorted(dominated) == sorted(numbers["output.dominated"].tolist())
    assert sorted(introducers) == sorted(numbers["output.introducers"].tolist())


GAMMA = torch.tensor([[1.0, 1.5, 1.5], [1.5, 1.0, 1.5]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_trl_gets_an_advantage_per_token_and_all_else_as_it_was():
    output = {"advantages": torch.tensor([2.0, -1.0]), "completion_mask": MASK, "prompt_ids": "kept"}
    made = for_trl(output, GAMMA)
    assert made["advantages"].tolist() == [[2.0, 3.0, 2.0], [-1.5, -1.0, -1.5]]
    assert made["prompt_ids"] == "kept"
    assert output["advantages"].shape == (2,)


def test_verl_gets_advantages_and_unchanged_returns():
    adv = torch.tensor([[2.0, 2.0, 0.0], [-1.0, -1.0, -1.0]])
    made, returns = for_verl((adv, adv), GAMMA, MASK.float())
    assert made.tolist() == [[2.0, 3.0, 0.0], [-1.5, -1.0, -1.5]]
    assert returns is adv


def test_openrlhf_gets_its_experience_back():
    adv = torch.tensor([[2.0, 2.0, 7.0], [-1.0, -1.0, -1.0]])
    experience = SimpleNamespace(advantages=adv, action_mask=MASK.bool())
    assert for_openrlhf(experience, GAMMA, sign="positive") is experience
    assert experience.advantages.tolist() == [[2.0, 3.0, 7.0], [-1.0, -1.0, -1.0]]


def test_roll_advantages_lack_the_first_token():
    batch = {
        "advantages": torch.tensor([[2.0, 2.0], [-1.0, -1.0]]),
        "response_mask": torch.tensor([[0, 1, 0], [0, 1, 1]]),
    }
    assert for_roll(SimpleNamespace(batch=batch), GAMMA).batch["advantages"].tolist() == [[3.0, 2.0], [-1.0, -1.5]]


def test_every_adapter_takes_the_policy_of_signs_and_of_norms():
    for adapter in (for_trl, for_verl, for_openrlhf, for_roll):
        parameters = inspect.signature(adapter).parameters
        assert [parameters[name].default for name in ("sign", "renormalise")] == ["both", False]
        assert "gamma" in parameters


ONE = torch.ones(1, 3)
ALL = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: local_chunk(ONE, ~ALL), r"response must have a token in every row, it has none in rows \[0\]"),
        (lambda: local_chunk(ONE, ALL, share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: global_anchor(ONE, ALL, share=1.1), r"share must be in \(0, 1\], got 1.1"),
        (lambda: global_anchor(ONE, ALL, amplification=0.5), "amplification must be finite and at least 1, got 0.5"),
        (lambda: global_anchor(ONE / 0, ALL), "signal must be finite on the response"),
        (lambda: local_chunk(ONE[:, :2], ALL), r"waad and response must both be \[batch, tokens\], got \(1, 2\)"),
        (lambda: coupled_rhythm(ONE, ONE, ALL, reach=0), "reach must be at least 1 token, got 0"),
        (lambda: coupled_rhythm(ONE, ONE, ALL, transfer=1.5), r"transfer must be in \[0, 1\], got 1.5"),
        (lambda: credited(torch.ones(2, 3), ONE, ALL), r"advantages must be \[batch\] or \[batch, tokens\]"),
        (lambda: credited(torch.ones(1), ONE, ALL, sign="all"), "sign must be one of both, positive, negative"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_the_public_face_is_complete():
    assert {name for name in dir(credit) if not name.startswith("_")} >= set(credit.__all__)
