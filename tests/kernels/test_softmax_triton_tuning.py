"""Which sizes of boxes the Triton kernels run with: by the simulator alone, or the fastest of its best few."""

import pytest
import torch

import windeye
from windeye.kernels.softmax.problem import problem_of
from windeye.patterns import Causal, Full, Neighborhood, Sliding

pytest.importorskip("triton")
from windeye.kernels.softmax.triton import sizes, tuning
from windeye.kernels.softmax.triton.plan import plan

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = ("attention", "grad_query", "grad_key_value", "grad_bias")


def problem(pattern=Neighborhood(5), grid=(12, 13), batch=1, head_dim=16, dtype=torch.float32, **options):  # noqa: B008
    q = torch.zeros(batch, *grid, 2, head_dim, dtype=dtype, device="meta")
    return problem_of(pattern, q, q, q, scale=1.0, **options)


@pytest.fixture
def stopwatch(monkeypatch):
    """Sizes are measured here, too: the longer the list of those that ran before, the faster. Tells what was run."""
    ran = []

    def milliseconds(run):
        run()
        ran.append(run)
        return -len(ran)

    monkeypatch.setattr(tuning, "wanted", lambda _device: True)
    monkeypatch.setattr(tuning, "milliseconds", milliseconds)
    monkeypatch.setattr(tuning, "MEASURED", {})
    return ran


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("pattern", "grid"), [(Causal(), (300,)), (Sliding(64), (500,)), (Neighborhood(13), (40, 40)), (Full(), (4, 5, 6))]
)
def test_candidates_begin_with_what_is_taken_unmeasured_and_waste_little(kernel, pattern, grid):
    this = problem(pattern, grid, dtype=torch.bfloat16)
    found = sizes.candidates(this, kernel)
    assert found[0] == sizes.first(this, kernel)
    assert 1 < len(set(found)) == len(found) <= sizes.MOST_CANDIDATES
    visited = [plan(this.bound, s.queries, s.keys, s.shape).visited * s.queries * s.keys for s in found]
    assert max(visited[1:]) <= sizes.MOST_WASTE * min(visited)
    costs = [sizes.cost(this, kernel, option) for option in found]
    assert costs[1:] == sorted(costs[1:])
    assert costs[0] <= costs[1]


@pytest.mark.parametrize("room", [99, 163, 227])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
def test_boxes_fit_the_device(room, dtype, head_dim, monkeypatch):
    """What stays and what is fetched ahead, reckoned here from the shapes; checked by compilation in another file."""
    monkeypatch.setattr(sizes, "shared_memory", lambda _device: room << 10)
    this = problem(head_dim=head_dim, dtype=dtype)
    wide = 128 if head_dim == 80 else head_dim
    for kernel in KERNELS:
        chosen = sizes.first(this, kernel)
        stays, passes = chosen.queries, chosen.keys
        if kernel == "grad_key_value":
            stays, passes = passes, stays
        rows = stays * (1 if kernel == "attention" else 2) + 2 * chosen.stages * passes
        assert rows * wide * dtype.itemsize <= room << 10
        assert min(chosen.queries, chosen.keys) >= 16  # tensor cores take no less


def test_larger_devices_and_narrower_heads_take_larger_boxes(monkeypatch):
    def area(head_dim, room):
        monkeypatch.setattr(sizes, "shared_memory", lambda _device: room << 10)
        chosen = sizes.first(problem(Full(), (64, 64), head_dim=head_dim, dtype=torch.bfloat16), "attention")
        return chosen.queries * chosen.keys

    areas = [area(64, 227), area(128, 227), area(256, 227), area(256, 99)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[2]


def test_small_windows_take_small_boxes():
    """Larger ones would hold mostly pairs that nobody wants."""
    small, large = (sizes.first(problem(Neighborhood(n), (64, 64), dtype=torch.bfloat16), "attention") for n in (9, 40))
    assert small.queries * small.keys < large.queries * large.keys


def test_few_plans_are_made_to_choose(monkeypatch):
    """Small boxes on a large grid take long to plan, and cannot be cheapest."""
    planned = []
    monkeypatch.setattr(sizes, "plan", lambda bound, *boxes: planned.append(boxes[:2]) or plan(bound, *boxes))
    sizes._first.cache_clear()
    sizes.first(problem(Full(), (64, 64), head_dim=128, dtype=torch.bfloat16), "attention")
    assert planned == [(128, 128)]


def test_the_fastest_is_found_once_for_all_calls_of_a_problem(stopwatch):
    seen = []
    for batch in (3, 4, 3):
        this = problem(batch=batch)
        seen.append(tuning.best(this, "attention", lambda _chosen: None))
    options = sizes.candidates(problem(), "attention")
    assert seen == [options[-1]] * 3  # the last one was the fastest
    assert len(stopwatch) == len(options)
    tuning.best(problem(batch=5), "attention", lambda _chosen: None)
    tuning.best(problem(batch=4), "grad_query", lambda _chosen: None)
    assert len(tuning.MEASURED) == 3


@pytest.mark.usefixtures("stopwatch")
def test_what_the_gpu_cannot_hold_is_not_taken(monkeypatch):
    first = sizes.first(problem(), "attention")
    monkeypatch.setattr(tuning, "milliseconds", lambda run: run() or float("inf") if tried[-1] != first else 1.0)
    tried = [first]
    assert tuning.best(problem(), "attention", tried.append) == first


@pytest.mark.usefixtures("stopwatch")
def test_every_candidate_gives_the_same_numbers():
    """The tuner runs them all, and the last one is taken."""
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(1, 5, 7, 1, 8, generator=generator).to(DEVICE).requires_grad_() for _ in range(3)]
    leaves.append(torch.randn(1, 7, 7, generator=generator).to(DEVICE).requires_grad_())
    found = []
    for backend in ("triton", "reference"):
        out, lse = windeye.attend(*leaves[:3], Neighborhood(4), bias=leaves[3], backend=backend, return_lse=True)
        found.append((out, lse, *torch.autograd.grad(out.sin().sum() + lse.sum(), leaves)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
    assert {key[0] for key in tuning.MEASURED} == set(KERNELS)


def test_nothing_is_measured_unless_asked_on_a_gpu_nor_where_bits_must_not_change(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.delenv("WINDEYE_AUTOTUNE", raising=False)
    assert not tuning.wanted(gpu)
    monkeypatch.setenv("WINDEYE_AUTOTUNE", "1")
    assert tuning.wanted(gpu)
    assert not tuning.wanted(torch.device("cpu"))
    torch.use_deterministic_algorithms(True)
    try:
        assert not tuning.wanted(gpu)
    finally:
        torch.use_deterministic_algorithms(False)
