"""Published decay rates, each against its formula or its check values."""

from math import exp, log
from typing import get_args

import pytest
import torch

from windeye.kernels.recurrence.decay import Convention, alibi_slopes, retnet_rates, tnl_rates


def test_slopes_of_a_head_count_that_is_no_power_of_two():
    expected = [2.0**-h for h in range(1, 9)] + [0.70711, 0.35355, 0.17678, 0.08839]
    assert alibi_slopes(12).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("convention", "head", "expected"),
    [
        ("code", 0, 2.0**-1 * (1 - 2 / 3 + 1e-5)),
        ("minimax", 0, 2.0**-1 * (1 - 2 / (3 + 1e-5) + 1e-5)),
        ("paper", 0, 1 * (1 - 2 / 4)),
        ("paper", 7, 8 * (1 - 2 / 4)),
        ("fla", 0, 0.0),
        ("fla", 7, 7 * (1 - 2 / 4)),
        ("xmixers", 0, (1 - 2 / 3 + 1e-5) / 2),
        ("xmixers", 7, (1 - 2 / 3 + 1e-5) / 256),
    ],
)
def test_conventions_of_layer_two_of_four_with_eight_heads(convention, head, expected):
    assert tnl_rates(8, 2, 4, convention)[head].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_model_of_one_layer_does_not_divide_by_zero():
    for convention in ("code", "minimax", "xmixers"):
        rates = tnl_rates(4, 0, 1, convention)
        assert rates[0] == pytest.approx({"code": 0.25, "minimax": 0.25, "xmixers": 0.5}[convention], rel=1e-4)


def test_the_first_layer_forgets_fast_and_the_last_hardly():
    assert exp(-tnl_rates(8, 0, 24)[0]) == pytest.approx(0.607, abs=1e-3)
    assert tnl_rates(8, 23, 24).max() < 1e-5


def test_retnet():
    assert retnet_rates(3).tolist() == pytest.approx([-log(1 - 2.0**-n) for n in (5, 6, 7)])


@pytest.mark.parametrize("convention", get_args(Convention))
def test_rates_are_numbers_whatever_the_default_device_is(convention):
    expected = [tnl_rates(6, 1, 4, convention), alibi_slopes(6), retnet_rates(6)]
    with torch.device("meta"):
        rates = [tnl_rates(6, 1, 4, convention), alibi_slopes(6), retnet_rates(6)]
    for ours, theirs in zip(rates, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alibi_slopes(0), "heads must be at least 1, got 0"),
        (lambda: retnet_rates(-1), "heads must be at least 1, got -1"),
        (lambda: tnl_rates(8, 4, 4), r"layer must be in \[0, 4\), got 4"),
        (lambda: tnl_rates(8, 0, 0), "layers must be at least 1, got 0"),
        (
            lambda: tnl_rates(8, 0, 4, "book"),
            "convention must be one of code, minimax, paper, fla, xmixers, got 'book'",
        ),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()
