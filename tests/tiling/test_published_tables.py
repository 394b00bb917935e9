"""The simulator reproduces the tables of the GNA paper."""

import pytest

from windeye import Neighborhood
from windeye.tiling import simulate, sweep_strides
from windeye.tiling.published import NOT_REPRODUCED, WORKLOADS

ROWS = [(w, stride, printed) for w in WORKLOADS for stride, printed in w.printed.items()]
DENSE_ROWS = [(w, stride, printed) for w in WORKLOADS for stride, printed in w.printed_with_dense.items()]


def label(value):
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("workload", "stride", "printed"), ROWS, ids=label)
def test_end_to_end_without_dense_steps(workload, stride, printed):
    assert abs(workload.simulate(stride).end_to_end(workload.share) - printed) <= workload.tolerance


@pytest.mark.parametrize(("workload", "stride", "printed"), DENSE_ROWS, ids=label)
def test_end_to_end_with_dense_steps(workload, stride, printed):
    ours = workload.simulate(stride).end_to_end(workload.share, workload.dense_fraction)
    assert abs(ours - printed) <= workload.tolerance


def test_hunyuan_at_the_level_of_the_operator():
    worst = simulate(Neighborhood((18, 24, 24)), (30, 48, 80), (4, 8, 8), (2, 8, 8))
    mean = simulate(Neighborhood((18, 24, 24)), (30, 48, 80), (4, 8, 8), (2, 8, 8), reduce="mean")
    assert round(worst.op_speedup, 1) == 3.3
    assert round(mean.op_speedup, 1) == 5.2
    assert round(worst.flop_speedup, 1) == 11.1


@pytest.mark.parametrize(
    ("name", "stride"), [("HunyuanVideo, 91% sparse", (16, 8, 8)), ("FLUX.1-dev 4K, 90% sparse", (16, 16))]
)
def test_the_best_settings_reach_the_flop_bound_without_masks(name, stride):
    workload = next(w for w in WORKLOADS if w.name == name)
    simulation = workload.simulate(stride)
    assert simulation.op_speedup == pytest.approx(simulation.flop_speedup)
    assert simulation.fully_block_sparse


def test_blocked_attention_at_58_percent_is_not_reproduced():
    """Kept as a fact: should the simulator ever agree with the paper here, the note is out of date."""
    printed, ours = NOT_REPRODUCED["HunyuanVideo, 58% sparse, blocked"]
    blocked = simulate(Neighborhood((30, 40, 40), stride=(30, 40, 40)), (30, 48, 80), (4, 8, 8), (2, 8, 8))
    assert round(blocked.end_to_end(0.607), 2) == ours
    assert abs(ours - printed) > 0.05


def test_the_sweep_keeps_the_strides_of_the_papers_table():
    workload = WORKLOADS[0]
    kept = sweep_strides(Neighborhood(workload.window), workload.grid, workload.q_tile, workload.kv_tile)
    strides = {s.pattern.split("stride=")[1].rstrip(")") + ")" for s in kept}
    assert {str(stride) for stride in workload.printed} <= strides
