"""What is timed is the backbone, what would take too long is not, and memory is that of one call."""

import pytest

from windeye.bench.timing import can_measure_memory
from windeye.compare.vision import Skeleton, arms
from windeye.compare.vision.memory import peaks
from windeye.compare.vision.speed import SpeedPlan, seconds

PLAN = SpeedPlan(Skeleton(16, dims=(8, 8), heads=(2, 2)), (16, 32), 512, rounds=1, most_seconds=4.0)
CHOSEN = [arms()[name] for name in ("full", "none")]


def test_an_arm_that_would_take_too_long_is_left_out_from_there_on():
    # A batch of 512 pixels is half an image of side 32, of which at least one is taken: sixteen times 0.3 seconds.
    found = seconds(CHOSEN, "inference", 32, PLAN, [{"full": 0.3, "none": 0.01}])
    assert found["full"] is None
    assert found["none"] > 0
    assert seconds(CHOSEN, "training", 32, PLAN, [{"full": None, "none": 0.01}])["full"] is None


@pytest.mark.skipif(not can_measure_memory(), reason="this system does not tell a process's peak")
def test_the_peak_is_that_of_one_call_and_training_keeps_what_inference_does_not():
    plan = SpeedPlan(Skeleton(16, dims=(64, 64), heads=(2, 2)), (128,), 128**2, rounds=1)
    chosen = [arms()[name] for name in ("none", "bi_level_routing", "window")]
    training, inference = (peaks(chosen, work, 128, plan) for work in ("training", "inference"))
    maps = 4 * 64 * 64**2  # bytes of one map of the first stage
    assert 2 * maps < inference["none"] < 32 * maps
    assert all(training[arm.name] > 2 * inference[arm.name] > 0 for arm in chosen)


@pytest.mark.parametrize("sides", [(), (32, 16), (4, 16), (16, 16)])
def test_sides_must_rise(sides):
    with pytest.raises(ValueError, match="sides must rise from at least four patches, 8 pixels, got"):
        SpeedPlan(sides=sides)
