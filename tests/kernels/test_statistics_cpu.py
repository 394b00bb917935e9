"""The compiled pass gives the statistics of the maps, whatever the relation, the type and the instruction set."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import windeye
from oracles.statistics_cases import CASES, Case, asked, assert_top, expected, inputs, maps
from windeye import Causal, Full, Sinks, Sliding
from windeye.kernels.native import instruction_sets
from windeye.kernels.statistics import compiled, cpu, passes, planner
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    DistanceMass,
    Entropy,
    MeanDistance,
    TopKeys,
    WindowedDistance,
)

pytestmark = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
EXACT = {"rtol": 1e-9, "atol": 1e-11}
TOLERANCE = {
    torch.float64: EXACT,
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.bfloat16: {"rtol": 2e-5, "atol": 2e-5},
    torch.float16: {"rtol": 2e-5, "atol": 2e-5},
}


def assert_equal(query, key, options, spans, **tolerance):
    values = windeye.statistics(query, key, asked(spans), route="cpu", **options)
    truth, weights = expected(query, key, options, spans)
    tolerance = tolerance or TOLERANCE[query.dtype]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    for name, value in truth.items():
        assert values[name].dtype == wide
        torch.testing.assert_close(values[name].double(), value, **tolerance, msg=lambda text, n=name: f"{n}: {text}")
    assert_top(values["top"].double(), weights, **tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_statistics_are_those_of_the_map(case):
    assert_equal(*inputs(case))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=st.builds(
        Case,
        queries=st.integers(1, 140),
        keys=st.one_of(st.none(), st.integers(1, 200)),
        batch=st.integers(1, 2),
        heads=st.sampled_from([4, 8]),
        kv_heads=st.sampled_from([1, 2, 4]),
        head_dim=st.integers(1, 20),
        pattern=st.sampled_from([Causal(), Full(), Sliding(6), Sliding(4) | Sinks(1)]),
        softcap=st.sampled_from([None, 1.5]),
        sinks=st.booleans(),
        bias=st.sampled_from([None, (True, False), (False, True)]),
        padding=st.sampled_from([None, "left", "random"]),
        rows=st.booleans(),
        spans=st.integers(1, 5),
    ),
    seed=st.integers(0, 99),
)
def test_any_combination(case, seed):
    assert_equal(*inputs(case, seed))


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_instruction_set_and_type(name, dtype, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", name)
    case = Case(100, keys=140, heads=6, kv_heads=2, head_dim=33, sinks=True, softcap=4.0, rows=True)
    assert_equal(*inputs(case, dtype=dtype))
    assert_equal(*inputs(replace(case, softcap=None, sinks=False, pattern=Sliding(40)), dtype=dtype))


def test_tensors_are_read_through_their_strides():
    case = Case(70, heads=4, kv_heads=2)
    query, key, options, spans = inputs(case)
    heads_first = query.transpose(1, 2).contiguous().transpose(1, 2)
    every_second = torch.stack((key, key + 1), dim=-1).flatten(-2)[..., ::2]
    reversed_batch = torch.cat((query[1:], query[:1])).flip(0)
    plain = windeye.statistics(query, key, asked(spans), route="cpu", **options)
    for q, k in ((heads_first, key), (query, every_second), (reversed_batch, key)):
        for name, value in windeye.statistics(q, k, asked(spans), route="cpu", **options).items():
            torch.testing.assert_close(value, plain[name], rtol=0, atol=0)


def test_the_same_bits_with_any_number_of_threads():
    query, key, options, spans = inputs(Case(300, heads=4, kv_heads=2, rows=True), dtype=torch.float32)
    one = windeye.statistics(query, key, asked(spans), route="cpu", **options)
    torch.set_num_threads(3)
    for name, value in windeye.statistics(query, key, asked(spans), route="cpu", **options).items():
        assert torch.equal(value, one[name]), name


def test_rows_that_see_nothing_are_zero_and_their_normaliser_is_minus_infinity():
    query, key, options, spans = inputs(Case(40))
    options["key_padding"] = torch.arange(40).expand(2, -1) < 35
    values = windeye.statistics(query, key, asked(spans), route="cpu", **options)
    rows = {name: values[name][:, :35] for name in ("entropy", "squares", "most", "mass", "far", "window", "spans")}
    assert all(bool((value == 0).all()) for value in rows.values())
    assert bool((values["top"][:, :35, :, :, 0] == -1).all())
    relation = Runs.of_bound(Causal().bind((40,), (40,))).without(options["key_padding"])
    lse = compiled.Work(Scores(query, key, relation, 0.7)).rows().lse
    assert bool((lse[:, :35] == -torch.inf).all())
    assert bool(lse[:, 35:].isfinite().all())


def test_a_row_whose_keys_are_hidden_gives_all_to_the_learned_sink():
    query, key, options, _ = inputs(Case(20, sinks=True))
    options["key_padding"] = torch.arange(20).expand(2, -1) < 10
    mass = windeye.statistics(query, key, "row_mass", route="cpu", **options)["row_mass"]
    assert bool((mass[:, :10] == 0).all())
    assert bool((mass[:, 10:] > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_in_a_hidden_key_reaches_nobody_and_in_a_query_only_its_row(dtype):
    query, key, options, spans = inputs(Case(90, heads=4, kv_heads=2), dtype=dtype)
    options["key_padding"] = torch.zeros(2, 90, dtype=torch.bool)
    options["key_padding"][:, [3, 70]] = True
    key[:, [3, 70]] = torch.nan
    clean = windeye.statistics(query, key.nan_to_num(0.0), asked(spans), route="cpu", **options)
    values = windeye.statistics(query, key, asked(spans), route="cpu", **options)
    for name, value in values.items():
        torch.testing.assert_close(value, clean[name], rtol=0, atol=0)
    query[:, 50, 1] = torch.nan
    others = torch.arange(90) != 50
    values = windeye.statistics(query, key, {"H": Entropy(), "W": WindowedDistance(10)}, route="cpu", **options)
    assert bool(values["H"][:, 50, 1].isnan().all())
    torch.testing.assert_close(values["H"][:, others], clean["entropy"][:, others], rtol=0, atol=0)
    torch.testing.assert_close(values["W"][:, others], clean["window"][:, others], rtol=0, atol=0)


def test_queries_that_do_not_count_may_hold_anything():
    query, key, options, _ = inputs(Case(80))
    options["rows"] = torch.arange(80).expand(2, -1) % 3 > 0
    clean = windeye.statistics(query, key, ["column_sum"], route="cpu", **options)["column_sum"]
    query[:, ::3] = torch.nan
    value = windeye.statistics(query, key, ["column_sum"], route="cpu", **options)["column_sum"]
    torch.testing.assert_close(value, clean, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1.0, 40.0, -40.0])
def test_logits_may_rise_or_fall_by_any_amount(steps):
    """Every key beats, or loses to, all before it: the running maximum moves in every block, or never."""
    keys = 300
    key = steps * torch.arange(keys, dtype=torch.float32).reshape(1, keys, 1, 1)
    query = torch.ones(1, keys, 1, 1)
    spans = torch.rand(1, 3, keys) < 0.5
    assert_equal(query, key, {"pattern": Causal(), "scale": 1.0}, spans, rtol=1e-4, atol=1e-5)


def test_distances_are_exact_over_many_thousand_tokens():
    keys = 32768
    query, key = torch.randn(1, 20, 2, 8), torch.randn(1, keys, 1, 8)
    stats = {
        "far": MeanDistance(),
        "window": WindowedDistance(10),
        "H": Entropy(),
        "behind": DistanceMass(20000, 20000),
    }
    value = windeye.statistics(query, key, stats, route="cpu")
    truth = windeye.statistics(query.double(), key.double(), stats, route="slab")
    for name in stats:
        torch.testing.assert_close(value[name].double(), truth[name], rtol=1e-5, atol=1e-9)


def test_distances_beyond_all_keys_cost_nothing():
    query, key = torch.randn(2, 1, 90, 2, 4, dtype=torch.float64).unbind(0)
    stats = {"past": DistanceMass(0, 10**9), "far": DistanceMass(10**9, 10**9), "ahead": DistanceMass(-(10**9), -1)}
    value = windeye.statistics(query, key, stats, Full(), route="cpu")
    truth = windeye.statistics(query, key, stats, Full(), route="slab")
    for name in stats:
        torch.testing.assert_close(value[name], truth[name], **EXACT)


def test_small_logits_under_a_cap_keep_their_digits():
    query, key = torch.randn(1, 200, 1, 8), torch.randn(1, 200, 1, 8)
    options = {"softcap": 1000.0, "scale": 0.3}
    value = windeye.statistics(query, key, "entropy", route="cpu", **options)["entropy"]
    truth = windeye.statistics(query.double(), key.double(), "entropy", route="slab", **options)["entropy"]
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=2e-6)


def test_the_most_keys_are_ranked_and_one_more_is_refused():
    query, key = torch.randn(2, 1, 200, 2, 4, dtype=torch.float64).unbind(0)
    value = windeye.statistics(query, key, {"top": TopKeys(32)}, route="cpu")["top"]
    weights, *_ = maps(query, key, pattern=Causal(), scale=0.5)
    assert_top(value, weights, **EXACT)
    with pytest.raises(ValueError, match="it ranks at most 32 keys, not 33"):
        windeye.statistics(query, key, {"top": TopKeys(33)}, route="cpu")


def test_equal_weights_rank_by_position():
    query, key = torch.zeros(1, 100, 1, 4), torch.zeros(1, 100, 1, 4)
    value = windeye.statistics(query, key, {"top": TopKeys(3)}, route="cpu")["top"]
    assert value[0, 99, 0, :, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(value[0, 99, 0, :, 1], torch.full((3,), 0.01))


def test_no_queries_or_no_keys_are_no_error_of_the_kernel():
    query, key = torch.randn(1, 3, 2, 4), torch.randn(1, 0, 2, 4)
    none = torch.zeros(1, 1, 3, dtype=torch.int32)
    rows = compiled.Work(Scores(query, key, Runs(none, none, 0, 0), 1.0), passes.Asked([Entropy()])).rows()
    assert bool((rows.lse == -torch.inf).all())
    assert bool((rows.sums["entropy"] == 0).all())


def test_what_the_kernel_cannot_take_goes_by_slabs_and_says_why():
    query, key = torch.randn(2, 1, 10, 2, 4).unbind(0)
    relation = Runs.of_bound(Causal().bind((10,), (10,)))
    scores = Scores(query, key, relation, 0.5)
    assert planner.choose(scores, Entropy()) == "cpu"
    reasons = {
        "it has no gradient of the bias": replace(scores, bias=torch.zeros(1, 1, 1, 10, requires_grad=True)),
        "the bias differs between queries": replace(scores, bias=torch.zeros(1, 1, 10, 10)),
        "logits are edited": replace(scores, edits=(lambda logits, _rows: logits,)),
        "query and key must both be": replace(scores, key=key.double()),
    }
    for reason, refused in reasons.items():
        found = cpu.can_run(refused, Entropy())
        assert found is not None
        assert reason in found
        assert planner.choose(refused, Entropy()) == "slab"
