"""What is timed is what the layers compute, and what would take too long is not timed."""

import math
import time

import pytest
import torch

from windeye.compare.sequence import ARMS, throughput
from windeye.compare.sequence.throughput import Layers, ThroughputPlan, expected, seconds

PLAN = ThroughputPlan(lengths=(16, 32), dim=16, rounds=1, decoded=2)


@pytest.mark.parametrize("name", list(ARMS))
def test_decoding_goes_on_where_the_prefill_ended(name):
    torch.manual_seed(0)
    layers = Layers(ARMS[name], PLAN).double()
    x = torch.randn(1, 40, PLAN.dim, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = layers(x, layers.unseen)
        out, states = layers(x[:, :37], layers.unseen)
        pieces = [out]
        for place in range(37, 40):
            out, states = layers(x[:, place : place + 1], states)
            pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-9, atol=1e-9)


def test_every_parameter_and_the_input_get_gradients():
    for arm in ARMS.values():
        layers = Layers(arm, PLAN)
        x = torch.randn(1, 8, PLAN.dim, requires_grad=True)
        out, _ = layers(x, layers.unseen)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in (x, *layers.parameters())), arm.name


def test_what_is_expected_grows_as_it_grew_and_at_least_twofold():
    assert expected("a", []) == 0.0
    assert expected("a", [{"a": 3.0}]) == 6.0
    assert expected("a", [{"a": 1.0}, {"a": 4.0}]) == 16.0
    assert expected("a", [{"a": 1.0}, {"a": 1.1}]) == pytest.approx(2.2)
    assert expected("a", [{"a": 1.0}, {"a": None}]) == math.inf


def test_an_arm_that_would_take_too_long_is_left_out_from_there_on(monkeypatch):
    timed = []
    real = throughput.candidate

    def watched(arm, work, length, plan, device):
        timed.append((arm.name, length))
        return real(arm, work, length, plan, device)

    monkeypatch.setattr(throughput, "candidate", watched)
    arms = [ARMS["softmax"], ARMS["tnl"]]
    slow = [{"softmax": 9.0, "tnl": 1.0}]
    found = seconds(arms, "prefill", 32, PLAN, slow)
    assert timed == [("tnl", 32)]
    assert found["softmax"] is None
    assert found["tnl"] > 0
    assert seconds(arms[:1], "prefill", 64, PLAN, [*slow, found]) == {"softmax": None}
    assert seconds(arms[:1], "decoding", 8, PLAN, slow)["softmax"] > 0


@pytest.mark.parametrize("lengths", [(), (32, 16), (0, 16), (16, 16)])
def test_lengths_must_rise(lengths):
    with pytest.raises(ValueError, match="lengths must be positive and rising, got"):
        ThroughputPlan(lengths=lengths)


def test_waiting_for_a_busy_processor_is_no_time_of_an_arm(monkeypatch):
    monkeypatch.setattr(throughput, "candidate", lambda *_arguments: lambda: time.sleep(0.05))
    assert seconds([ARMS["tnl"]], "prefill", 16, PLAN, [])["tnl"] < 0.02
