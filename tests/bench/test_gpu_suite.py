"""The GPU suite: on a machine without one its parts run in Triton's interpreter, and the suite says what it needs."""

import pytest
import torch

from windeye.bench import gpu

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")


def test_a_part_is_measured_and_becomes_a_row():
    case = gpu.Case("4x8, kernel 3", (4, 8), 1, 16, gpu.Neighborhood(3), (4, 8))
    part = gpu.measure(case, "cpu", 3)
    assert set(part["forward_ms"]) >= {"windeye", "dense"}
    assert set(part["training_ms"]) == {"windeye", "dense"}
    assert set(part["statistics_ms"]) == {"row statistics", "column sums", "row statistics and their gradients"}
    assert part["refused"]["NATTEN"].startswith("it runs on CUDA")
    assert part["flop_bound"] == pytest.approx(32 / 9)
    (row,) = gpu.rows({"parts": {"device": gpu.about("cpu"), case.name: part}})
    assert len(row) == len(gpu.COLUMNS)
    assert row[2] == "-"  # nothing is tuned without a GPU
    assert row[5].endswith("x")
    assert row[9] == "-"
    assert row[-1].endswith("x")


def test_candidates_compute_the_same():
    case = gpu.Case("4x8, kernel 8", (4, 8), 2, 16, gpu.Neighborhood((4, 8)), (4, 8))
    data = gpu._inputs(case, "cpu", torch.float32)
    runs = gpu.candidates(case, data, {})
    ours = runs["windeye"]().flatten(1, 2).transpose(1, 2)
    torch.testing.assert_close(ours, runs["dense"](), rtol=1e-4, atol=1e-5)  # the window is everything


def test_tokens_in_tile_order_come_back():
    order = gpu.tile_order((5, 6), (2, 4))
    assert sorted(order.tolist()) == list(range(30))
    assert order.tolist()[:8] == [0, 1, 2, 3, 6, 7, 8, 9]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_suite_says_so():
    with pytest.raises(ValueError, match="needs a CUDA device"):
        next(gpu.parts())
