"""The Triton kernels equal the oracle, forward and every gradient: on a GPU, or in Triton's interpreter."""

from dataclasses import replace
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

import windeye
from oracles.problems import PROBLEMS, Problem, gradients, inputs, problems, truth
from windeye.kernels.softmax import triton
from windeye.patterns import Causal, Full, Neighborhood, Sinks, Sliding

pytest.importorskip("triton")
# The interpreter of Triton 3.6 turns arrays of one element into numbers, which NumPy is about to refuse.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a GPU all; the interpreter takes seconds for each, so there every fourth and those with bias or padding.
KNOWN = PROBLEMS
if DEVICE == "cpu":
    KNOWN = [p for i, p in enumerate(PROBLEMS) if p.bias or p.padding or (i % 4 == 0 and prod(p.grid) < 100)]
BOUNDS = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture
def small_boxes(monkeypatch):
    """So small that grids of a test have several boxes of either kind."""
    from windeye.kernels.softmax.triton import tuning
    from windeye.kernels.softmax.triton.sizes import Sizes

    monkeypatch.setattr(tuning, "first", lambda _problem, kernel: Sizes(32 if kernel == "attention" else 16, 16, 4, 1))


def close(actual, expected, tolerance):
    actual, expected = actual.double().cpu(), expected.double()
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(actual), finite)
    if finite.any():
        size = expected[finite].abs().max().clamp(min=1)
        assert (actual[finite] - expected[finite]).abs().max() <= tolerance * size


def check(problem, dtype):
    data = inputs(problem)
    expected = truth(problem, data)
    expected_grads = gradients(*expected, data)
    cast = data.cast(dtype)
    torch.use_deterministic_algorithms(True)  # buffers that are not fully written would show as NaN
    try:
        actual = windeye.attend(
            *(t.to(DEVICE) for t in (cast.query, cast.key, cast.value)), problem.pattern, scale=cast.scale,
            bias=None if cast.bias is None else cast.bias.to(DEVICE),
            key_padding=None if cast.hidden is None else cast.hidden.to(DEVICE), backend="triton", return_lse=True,
        )  # fmt: skip
        actual = tuple(t.cpu() for t in actual)
        grads = gradients(*actual, cast)
    finally:
        torch.use_deterministic_algorithms(False)
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs, BOUNDS[dtype])
    for ours, theirs in zip(grads, expected_grads, strict=True):
        close(ours, theirs, 4 * BOUNDS[dtype])


@pytest.mark.parametrize("problem", KNOWN, ids=str)
@pytest.mark.usefixtures("small_boxes")
def test_equals_the_oracle(problem):
    check(problem, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.usefixtures("small_boxes")
def test_half_types(dtype):
    check(next(p for p in KNOWN if len(p.grid) == 2), dtype)


@pytest.mark.parametrize(
    ("head_dim", "value_dim", "dtype"),
    [
        (16, 16, torch.float32),
        (40, 96, torch.float16),
        (80, 33, torch.bfloat16),
        (128, 64, torch.float16),
        (256, 256, torch.float32),
    ],
    ids=str,
)
def test_wide_and_odd_heads(head_dim, value_dim, dtype):
    """With the boxes that these take; more coordinates than a power of two are filled up with zeros."""
    check(Problem(Neighborhood(3), (5, 4), heads=1, kv_heads=1, head_dim=head_dim, value_dim=value_dim), dtype)


@pytest.mark.usefixtures("small_boxes")
def test_lists_of_huge_grids_are_wider(monkeypatch):
    from windeye.kernels.softmax.triton import launch
    from windeye.kernels.softmax.triton.arguments import Side

    assert Side.of((1, 1, 1 << 31), (1, 1, 1), (1, 1, 1 << 25)).narrow
    assert not Side.of((1, 1, (1 << 31) + 1), (1, 1, 1), (1, 1, 1 << 25)).narrow
    monkeypatch.setattr(Side, "narrow", False)
    launch.tables.cache_clear()
    pattern = Neighborhood((2, 3), dilation=(1, 2))
    check(Problem(pattern, (5, 9), kv_heads=1, bias=(2, 4), dilation=(1, 2)), torch.float32)
    launch.tables.cache_clear()


def test_float32_is_multiplied_as_torch_is_told_to(monkeypatch):
    from windeye.kernels.softmax.triton.launch import precision

    def of(dtype, device="cuda"):
        return precision(replace(_problem(torch.zeros(1, 8, 2, 16, dtype=dtype)), device=torch.device(device)))

    for told, taken in (("highest", "tf32x3"), ("high", "tf32"), ("medium", "tf32")):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda told=told: told)
        assert of(torch.float32) == taken
        assert of(torch.bfloat16) == of(torch.float16) == "tf32"  # of no concern to half types
    assert of(torch.bfloat16, "cpu") == "wide"


@settings(
    max_examples=50 if DEVICE == "cuda" else 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(problem=problems())
@pytest.mark.usefixtures("small_boxes")
def test_random_problems(problem):
    check(problem, torch.float32)


@settings(
    max_examples=50 if DEVICE == "cuda" else 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(problem=problems())
@pytest.mark.usefixtures("small_boxes")
def test_random_bias_tables(problem):
    """Over the whole grid, with the dilation of the pattern, where it has one."""
    bound = problem.pattern.bind(problem.grid)
    assume(bound.terms and "wrap" not in problem.pattern.spec)
    dilation = tuple(min(term[axis].step for term in bound.terms) for axis in range(bound.rank))
    assume(all(term[axis].step == dilation[axis] for term in bound.terms for axis in range(bound.rank)))
    reach = tuple(-(-length // step) for length, step in zip(problem.grid, dilation, strict=True))
    check(replace(problem, bias=reach, dilation=dilation), torch.float32)


def dropped(backend, pattern, grid, bias=None):
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, *grid, 4, 5), (2, *grid, 2, 5), (2, *grid, 2, 3))
    leaves = [torch.randn(shape, generator=generator).to(DEVICE).requires_grad_() for shape in shapes]
    leaves += [] if bias is None else [bias.to(DEVICE).requires_grad_()]
    torch.manual_seed(3)
    out, lse = windeye.attend(
        *leaves[:3], pattern, bias=None if bias is None else leaves[3], dropout_p=0.4, backend=backend, return_lse=True
    )
    return out, lse, *torch.autograd.grad(out.sin().sum() + lse.sum(), leaves)


@pytest.mark.parametrize(
    ("pattern", "grid", "bias"),
    [
        (Neighborhood(3, dilation=2), (6, 7), None),
        (Neighborhood(3), (5, 4), torch.randn(4, 5, 5)),
        (Causal(), (20,), None),
    ],
    ids=["dilated", "bias", "causal"],
)
@pytest.mark.usefixtures("small_boxes")
def test_drops_the_pairs_that_the_oracle_drops(pattern, grid, bias):
    for ours, theirs in zip(dropped("triton", pattern, grid, bias), dropped("reference", pattern, grid, bias),
                            strict=True):  # fmt: skip
        close(ours.detach(), theirs.detach().cpu(), 5e-6)


@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Full(), (40,)),
        (Causal(), (50,)),
        (Sliding(9) | Sinks(2), (45,)),
        (Neighborhood(5, dilation=3), (41,)),
        (Neighborhood((4, 6), stride=(2, 3)), (9, 14)),
        (Neighborhood(3, boundary="wrap"), (7, 9)),
        (Neighborhood((2, 3, 4), is_causal=(True, False, False)), (3, 5, 6)),
    ],
    ids=str,
)
def test_plans_meet_where_queries_see(pattern, grid):
    """Boxes that meet cover every pair that is seen, and those that meet whole hold no other pair."""
    from windeye.kernels.softmax.triton.plan import plan

    bound = pattern.bind(grid)
    mask = bound.mask().numpy()
    work = plan(bound, 16, 8)

    def tokens(axes, box):
        sizes = [axis.size for axis in axes]
        counts = [axis.count for axis in axes]
        place = (box // (counts[1] * counts[2]), box // counts[2] % counts[1], box % counts[2])
        lanes = [axis.coordinates[i * s : (i + 1) * s] for axis, i, s in zip(axes, place, sizes, strict=True)]
        full = (1,) * (3 - len(grid)) + grid
        return [
            (a * full[1] + b) * full[2] + c for a in lanes[0] for b in lanes[1] for c in lanes[2] if min(a, b, c) >= 0
        ]

    covered = mask & False
    for box in range(len(work.of_queries.middle)):
        queries = tokens(work.queries, box)
        begin, middle, end = work.of_queries.begin[box], work.of_queries.middle[box], work.of_queries.begin[box + 1]
        for number in range(begin, end):
            keys = tokens(work.keys, work.of_queries.other[number])
            assert mask[queries][:, keys].any() or number >= middle
            if number < middle:
                assert mask[queries][:, keys].all()
                assert len(keys) == 8
            for query in queries:
                assert not covered[query, keys].any()  # no pair is met twice
                covered[query, keys] = True
    assert not (mask & ~covered).any()
    pairs = {(b, int(o)) for b in range(len(work.of_queries.middle))
             for o in work.of_queries.other[work.of_queries.begin[b] : work.of_queries.begin[b + 1]]}  # fmt: skip
    back = {(int(o), b) for b in range(len(work.of_keys.middle))
            for o in work.of_keys.other[work.of_keys.begin[b] : work.of_keys.begin[b + 1]]}  # fmt: skip
    assert pairs == back


@pytest.mark.parametrize(
    ("pattern", "grid", "offsets"),
    [
        (Neighborhood(3), (5, 7), (5, 5)),
        (Neighborhood((2, 5), dilation=(1, 3)), (9, 40), (3, 9)),
        (Neighborhood((2, 3, 4), stride=(1, 2, 3)), (5, 6, 19), (3, 5, 7)),
        (Causal(), (70,), (139,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("boxes", [(16, 16), (64, 32), (16, 128)], ids=str)
def test_no_pair_of_boxes_reaches_beyond_its_bias_table(pattern, grid, offsets, boxes):
    """Whatever the lanes of two boxes that meet, tokens or none: the kernels look without asking."""
    from windeye.kernels.softmax.triton import launch, relative

    bound = pattern.bind(grid)
    t = launch.tables(bound, *boxes, torch.device("cpu"))
    bias = relative.argument(bound, torch.zeros(1, *offsets), t.plan)
    units, strides = (bias.unit0, bias.unit1, bias.unit2), (bias.stride0, bias.stride1, 1)

    def reach(side, packed, axes):
        """The first place of each box, and how far the last lies behind it."""
        first = packed >> side.shift0, packed >> side.shift1 & side.mask1, packed & side.mask2
        at = sum(axis // unit * stride for axis, unit, stride in zip(first, units, strides, strict=True))
        return at, sum((axis.size - 1) * stride for axis, stride in zip(axes, strides, strict=True))

    lists = t.of_queries
    owners = torch.repeat_interleave(torch.arange(len(lists.middle)), lists.begin.diff())
    numbers = torch.from_numpy(launch.origins(t.queries, t.plan.queries, owners.int().numpy()))
    q, q_more = reach(t.queries, numbers, t.plan.queries)
    k, k_more = reach(t.keys, lists.other, t.plan.keys)
    assert (bias.centre + k - q - q_more).min() >= 0
    assert (bias.centre + k + k_more - q).max() < bias.size == bias.table[0].numel()


def test_long_sequences_are_planned_from_boxes_of_their_own_length():
    """Small boxes would be a table of 16,384 MiB here."""
    from windeye.kernels.softmax.triton.plan import plan

    queries, window = 1 << 17, 2048
    work = plan(Sliding(window).bind((queries,)), 128, 64)
    assert [axis.size for axis in work.queries + work.keys] == [1, 1, 128, 1, 1, 64]
    last = work.of_queries.begin[-1] - work.of_queries.begin[-2]
    assert last == (window + 128) // 64


def test_boxes_follow_the_window():
    """The boxes of a strided 3-D window are those that the simulator finds fully block-sparse."""
    from windeye.kernels.softmax.triton.plan import plan

    work = plan(Neighborhood((8, 8, 8), stride=(8, 8, 8)).bind((16, 16, 16)), 128, 64)
    assert (work.of_queries.middle == work.of_queries.begin[1:]).all()  # nothing is masked
    assert work.visited * 128 * 64 == 16**3 * 8**3


def test_what_it_cannot_run_is_told(monkeypatch):
    q = torch.zeros(1, 8, 2, 16, device=DEVICE)
    bias = torch.zeros(2, 5, device=DEVICE)
    with pytest.raises(ValueError, match="no single offset per pair"):
        windeye.attend(q, q, q, Neighborhood(3, boundary="wrap"), bias=bias, backend="triton")
    with pytest.raises(ValueError, match="it has no float64"):
        windeye.attend(q.double(), q.double(), q.double(), Sliding(3), backend="triton")
    allowed = windeye.Allowed(torch.ones(8, 8, dtype=torch.bool, device=DEVICE))
    with pytest.raises(ValueError, match="depends on data"):
        windeye.attend(q, q, q, allowed, backend="triton")
    if DEVICE == "cpu":
        monkeypatch.delenv("TRITON_INTERPRET")
        assert "TRITON_INTERPRET=1" in triton.can_run(_problem(q))


def _problem(q):
    from windeye.kernels.softmax.problem import problem_of

    return problem_of(Sliding(3), q, q, q, scale=1.0)
