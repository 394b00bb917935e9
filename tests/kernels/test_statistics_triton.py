"""The Triton kernels give the statistics of the maps and their gradients: on a GPU, or in Triton's interpreter."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

import windeye
from oracles.statistics_cases import CASES, Case, LogDistance, asked, assert_top, expected, inputs
from windeye import Causal, Full, Neighborhood, Sinks, Sliding
from windeye.kernels.statistics import planner, triton
from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.relation import Runs
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    DistanceMass,
    Entropy,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    SpanMass,
    TopKeys,
    WindowedDistance,
)

pytest.importorskip("triton")
# The interpreter of Triton 3.6 turns arrays of one element into numbers, which NumPy is about to refuse.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EXACT = {"rtol": 1e-9, "atol": 1e-11}
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
ROUGH = {"rtol": 1e-2, "atol": 1e-2}

# Between them everything that logits and relations may be; the interpreter takes seconds for each.
FEW = [
    Case(1, heads=1, batch=1),
    Case(37, batch=1, sinks=True, softcap=2.0, rows=True),
    Case(12, keys=40, batch=1, heads=4, kv_heads=2, bias=(False, True)),
    Case(21, heads=1, padding="random", bias=(True, False)),
    Case(40, batch=1, heads=1, pattern=Neighborhood(5, dilation=3)),
    Case(40, batch=1, heads=1, pattern=Sliding(7) | Sinks(2), spans=70),
]


@pytest.fixture
def small_boxes(monkeypatch):
    """So small that short sequences have several boxes of either kind."""
    from windeye.kernels.statistics.triton import launch

    monkeypatch.setattr(launch, "sizes", lambda _scores, backward: launch.Sizes(16, 8 if backward else 16, 4, 1))


def on_device(value):
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


def ours(query, key, stats, route="triton", **options):
    """Values on the CPU; memory that is not written would show as NaN."""
    options = {name: on_device(value) for name, value in options.items()}
    torch.use_deterministic_algorithms(True)
    try:
        values = windeye.statistics(query.to(DEVICE), key.to(DEVICE), stats, route=route, **options)
    finally:
        torch.use_deterministic_algorithms(False)
    return {name: value.cpu() for name, value in values.items()}


def assert_equal(case, dtype=torch.float64, **tolerance):
    query, key, options, spans = inputs(case, dtype=dtype)
    tolerance = tolerance or (EXACT if dtype == torch.float64 else CLOSE)
    values = ours(query, key, asked(spans), **options)
    truth, weights = expected(query, key, options, spans)
    for name, value in truth.items():
        assert values[name].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(values[name].double(), value, **tolerance, msg=lambda text, n=name: f"{n}: {text}")
    assert_top(values["top"].double(), weights, **tolerance)


@pytest.mark.parametrize("case", CASES if DEVICE == "cuda" else FEW, ids=str)
@pytest.mark.usefixtures("small_boxes")
def test_statistics_are_those_of_the_map(case):
    assert_equal(case)


@settings(
    max_examples=100 if DEVICE == "cuda" else 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    case=st.builds(
        Case,
        queries=st.integers(1, 30),
        keys=st.integers(30, 40),
        heads=st.sampled_from([2, 4]),
        kv_heads=st.sampled_from([1, 2]),
        batch=st.integers(1, 2),
        head_dim=st.integers(1, 20),
        pattern=st.sampled_from([Causal(), Full(), Sliding(6), Sliding(4) | Sinks(1)]),
        softcap=st.sampled_from([None, 1.5]),
        sinks=st.booleans(),
        bias=st.sampled_from([None, (True, False), (False, True)]),
        padding=st.sampled_from([None, "left", "random"]),
        rows=st.booleans(),
    )
)
@pytest.mark.usefixtures("small_boxes")
def test_any_combination(case):
    assert_equal(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_type(dtype):
    case = Case(100, keys=140, heads=6, kv_heads=2, head_dim=33, sinks=True, softcap=4.0, rows=True)
    assert_equal(case if DEVICE == "cuda" else replace(case, queries=20, keys=30, heads=2, batch=1), dtype)


def asked_of_grids(keys):
    """What needs no distance in one dimension to be told, and what takes row-major numbers for it."""
    spans = torch.arange(keys)[None, None] % torch.tensor([2, 3])[:, None] == 0
    return {
        "H": Entropy(), "mass": RowMass(), "far": MeanDistance(), "near": DistanceMass(-7, 7), "most": MaxWeight(),
        "spans": SpanMass(spans.to(DEVICE)), "sum": ColumnSum(), "mean": ColumnMean(), "f": FutureInfluence(2, 9),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Neighborhood((3, 4), stride=(2, 1), is_causal=(False, True)), (5, 9)),
        (Neighborhood(3, dilation=2, boundary="wrap"), (6, 8)),
        (Neighborhood((2, 3, 3)), (3, 4, 5)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("small_boxes")
def test_statistics_of_grids(pattern, grid):
    query, key = torch.randn(2, 1, *grid, 2, 5, dtype=torch.float64).unbind(0)
    hidden = torch.rand(1, *grid) < 0.2
    stats = asked_of_grids(hidden.numel())
    values = ours(query, key, stats, pattern=pattern, key_padding=hidden)
    truth = windeye.statistics(query, key, {k: v for k, v in stats.items() if k != "spans"}, pattern,
                               key_padding=hidden, route="slab")  # fmt: skip
    for name, value in truth.items():
        torch.testing.assert_close(values[name], value, **EXACT, msg=lambda text, n=name: f"{n}: {text}")


def masks(name, batch, queries, keys):
    seen = {
        "scattered": torch.rand(batch, queries, keys) < 0.5,
        "mostly": torch.rand(batch, queries, keys) < 0.99,
        "everything": torch.ones(batch, queries, keys, dtype=torch.bool),
        "nothing": torch.zeros(batch, queries, keys, dtype=torch.bool),
    }[name]
    seen[0, queries // 2] = False
    return seen


@pytest.mark.parametrize("name", ["scattered", "mostly", "nothing"])
@pytest.mark.usefixtures("small_boxes")
def test_statistics_of_any_mask(name):
    query, key = torch.randn(2, 20, 2, 5, dtype=torch.float64), torch.randn(2, 35, 1, 5, dtype=torch.float64)
    relation = Runs.of_mask(masks(name, 2, 20, 35))
    scores = Scores(query, key, relation, 0.7, sink_logits=torch.randn(2, dtype=torch.float64))
    stats = {"H": Entropy(), "mass": RowMass(), "far": MeanDistance(), "top": TopKeys(3), "sum": ColumnSum()}
    moved = [t.to(DEVICE) for t in (query, key, relation.start, relation.stop, scores.sink_logits)]
    there = replace(scores, query=moved[0], key=moved[1], sink_logits=moved[4],
                    relation=Runs(moved[2], moved[3], relation.keys, relation.offset))  # fmt: skip
    values, truth = planner.run(there, stats, "triton"), planner.run(scores, stats, "slab")
    for name_ in stats:
        theirs = truth[name_]
        if name_ == "top":  # keys without weight may stand in any order there
            theirs = theirs.masked_fill((theirs[..., 1:] == 0).expand_as(theirs), 0.0)
            values[name_] = values[name_].clone()
            values[name_][(values[name_][..., 1] == 0)] = 0.0
        torch.testing.assert_close(values[name_].cpu(), theirs, **EXACT, msg=lambda text, n=name_: f"{n}: {text}")


@pytest.mark.parametrize("name", ["scattered", "mostly", "everything", "nothing"])
@pytest.mark.parametrize(("queries", "keys"), [(20, 35), (16, 8), (3, 50)])
def test_boxes_meet_where_queries_see(name, queries, keys):
    """Boxes that meet hold a pair that is seen; of those that meet whole one run shows all keys to each query."""
    from windeye.kernels.statistics.triton.visits import visits

    seen = masks(name, 2, queries, keys)
    found, _ = visits(Runs.of_mask(seen), 16, 8)
    rows, columns = found.queries.boxes, found.keys.boxes
    for batch in range(2):
        met = {True: set(), False: set()}
        for box in range(rows):
            entry = batch * rows + box
            begin, middle, end = (int(t) for t in (found.of_queries.begin[entry], found.of_queries.middle[entry],
                                                   found.of_queries.begin[entry + 1]))  # fmt: skip
            for at in range(begin, end):
                met[at < middle].add((box, int(found.of_queries.other[at]) // 8))  # named by first tokens
        for box in range(rows):
            for other in range(columns):
                block = seen[batch, box * 16 : (box + 1) * 16, other * 8 : (other + 1) * 8]
                whole = bool(block.all()) and block.shape[1] == 8
                assert ((box, other) in met[True]) == whole
                assert ((box, other) in met[False]) == (bool(block.any()) and not whole)
        back = set()
        for box in range(columns):
            entry = batch * columns + box
            others = found.of_keys.other[found.of_keys.begin[entry] : found.of_keys.begin[entry + 1]]
            back |= {(int(other) // 16, box) for other in others}
        assert back == met[True] | met[False]


def gradients(query, key, options, stats, route, device="cpu"):
    """Of a loss that weighs every number differently; with respect to queries, keys and learned sinks."""
    leaves = [t.detach().to(device).requires_grad_() for t in (query, key)]
    options = {name: on_device(v) if device == DEVICE else v for name, v in options.items()}
    if "sink_logits" in options:
        options["sink_logits"] = options["sink_logits"].detach().to(device).requires_grad_()
        leaves.append(options["sink_logits"])
    values = windeye.statistics(leaves[0], leaves[1], stats, route=route, **options)
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for value in values.values():
        factors = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        loss = loss + (value.double().cpu() * factors).sum()
    return [grad.cpu() for grad in torch.autograd.grad(loss, leaves)]


def rows_of(spans):
    """All that has a gradient."""
    return {
        "H": Entropy(), "P": Participation(), "m": RowMass(), "d": MeanDistance(), "log": LogDistance(),
        "window": WindowedDistance(10), "around": DistanceMass(-3, 70), "sinks": SinkMass(3), "spans": SpanMass(spans),
    }  # fmt: skip


def assert_gradients(case, dtype=torch.float64, **tolerance):
    query, key, options, spans = inputs(case, dtype=dtype)
    options.pop("rows", None)
    found = gradients(query, key, options, rows_of(spans.to(DEVICE)), "triton", DEVICE)
    truth = gradients(query.double(), key.double(), options, rows_of(spans), "slab")
    for ours_, theirs in zip(found, truth, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours_.double() / scale, theirs / scale, **(tolerance or EXACT))


@pytest.mark.parametrize("case", CASES if DEVICE == "cuda" else [*FEW[1:5], Case(9, batch=1, spans=130)], ids=str)
@pytest.mark.usefixtures("small_boxes")
def test_gradients_are_those_of_the_map(case):
    assert_gradients(case)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, {"rtol": 2e-4, "atol": 2e-4}), (torch.bfloat16, ROUGH)]
)
def test_gradients_of_every_type(dtype, tolerance):
    assert_gradients(Case(20, keys=30, batch=1, head_dim=20, sinks=True, softcap=4.0), dtype, **tolerance)


def test_nan_in_a_hidden_key_reaches_nobody_and_in_a_query_only_its_row():
    query, key, options, spans = inputs(Case(20, batch=1, heads=2))
    options["key_padding"] = torch.zeros(1, 20, dtype=torch.bool)
    options["key_padding"][:, [3, 7]] = True
    few = {"H": Entropy(), "window": WindowedDistance(10), "spans": SpanMass(spans.to(DEVICE)), "sum": ColumnSum()}
    clean = ours(query, key, few, **options)
    rows = {name: few[name] for name in ("H", "window", "spans")}
    of_query, of_key = gradients(query, key, options, rows, "triton", DEVICE)
    key[:, [3, 7]] = torch.nan
    for name, value in ours(query, key, few, **options).items():
        torch.testing.assert_close(value, clean[name], rtol=0, atol=0)
    again = gradients(query, key, options, rows, "triton", DEVICE)
    shown = ~options["key_padding"][0]
    torch.testing.assert_close(again[0], of_query, rtol=0, atol=0)
    torch.testing.assert_close(again[1][:, shown], of_key[:, shown], rtol=0, atol=0)
    query[:, 15, 1] = torch.nan
    values = ours(query, key, few, **options)
    others = torch.arange(20) != 15
    assert bool(values["H"][:, 15, 1].isnan().all())
    for name in rows:
        torch.testing.assert_close(values[name][:, others], clean[name][:, others], rtol=0, atol=0)
    # It does not count: the columns are as if it were not there.
    options["rows"] = others[None]
    values = ours(query, key, {"sum": ColumnSum()}, **options)
    truth = ours(query.nan_to_num(0.0), key, {"sum": ColumnSum()}, **options)
    torch.testing.assert_close(values["sum"], truth["sum"], rtol=0, atol=0)


def test_rows_that_see_nothing_are_zero():
    query, key, options, spans = inputs(Case(20, batch=1))
    options["key_padding"] = torch.arange(20)[None] < 15
    stats = {"H": Entropy(), "most": MaxWeight(), "mass": RowMass(), "spans": SpanMass(spans.to(DEVICE))}
    values = ours(query, key, stats | {"top": TopKeys(2)}, **options)
    assert all(bool((values[name][:, :15] == 0).all()) for name in stats)
    assert bool((values["top"][:, :15, :, :, 0] == -1).all())
    of_query, of_key = gradients(query, key, options, {"H": Entropy()}, "triton", DEVICE)
    assert bool((of_query[:, :15] == 0).all())
    assert bool((of_key[:, :15] == 0).all())


@pytest.mark.parametrize("steps", [40.0, -40.0])
def test_logits_may_rise_or_fall_by_any_amount(steps):
    """Every key beats, or loses to, all before it: the running maximum moves in every box, or never."""
    key = steps * torch.arange(40, dtype=torch.float64).reshape(1, 40, 1, 1)
    query = torch.ones(1, 40, 1, 1, dtype=torch.float64)
    stats = {"H": Entropy(), "P": Participation(), "far": MeanDistance()}
    values = ours(query.float(), key.float(), stats, scale=1.0)
    truth = windeye.statistics(query, key, stats, scale=1.0, route="slab")
    for name in stats:
        torch.testing.assert_close(values[name].double(), truth[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_boxes")
def test_equal_weights_rank_by_position():
    query = torch.zeros(1, 40, 1, 4)
    for pattern in (Causal(), Full()):
        value = ours(query, query, {"top": TopKeys(3)}, pattern=pattern)["top"]
        assert value[0, 39, 0, :, 0].tolist() == [0, 1, 2]
        torch.testing.assert_close(value[0, 39, 0, :, 1], torch.full((3,), 1 / 40))


def test_small_logits_under_a_cap_keep_their_digits():
    query, key = torch.randn(1, 20, 1, 8), torch.randn(1, 20, 1, 8)
    options = {"softcap": 1000.0, "scale": 0.3}
    value = ours(query, key, "entropy", **options)["entropy"]
    truth = windeye.statistics(query.double(), key.double(), "entropy", route="slab", **options)["entropy"]
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0)])
def test_no_queries_or_no_keys_are_no_error_of_the_kernels(queries, keys):
    query, key = torch.randn(1, queries, 2, 4, device=DEVICE), torch.randn(1, keys, 1, 4, device=DEVICE)
    none = torch.zeros(1, 1, queries, dtype=torch.int32, device=DEVICE)
    stats = {"H": Entropy(), "d": DistanceMass(0, 1), "top": TopKeys(2), "sum": ColumnSum()}
    values = planner.run(Scores(query, key, Runs(none, none, keys, keys - queries), 1.0), stats, "triton")
    assert bool((values["H"] == 0).all())
    assert bool((values["top"][..., 0] == -1).all())
    assert values["sum"].shape == (1, keys, 2)


@pytest.mark.gpu
def test_distances_are_exact_over_many_thousand_tokens():
    query, key = torch.randn(1, 20, 2, 8), torch.randn(1, 32768, 1, 8)
    stats = {"far": MeanDistance(), "window": WindowedDistance(10), "H": Entropy(), "at": DistanceMass(20000, 20000)}
    values = ours(query, key, stats)
    truth = windeye.statistics(query.double(), key.double(), stats, route="slab")
    for name in stats:
        torch.testing.assert_close(values[name].double(), truth[name], rtol=1e-5, atol=1e-9)


@pytest.mark.gpu
def test_the_same_bits_on_every_run():
    query, key = torch.randn(2, 4, 3000, 4, 64).to("cuda", torch.bfloat16).unbind(0)
    stats = {"H": Entropy(), "far": MeanDistance(), "top": TopKeys(32), "sum": ColumnSum()}
    first = windeye.statistics(query, key, stats)
    leaves = [t.clone().requires_grad_() for t in (query, key)]
    grads = []
    for _ in range(5):
        for name, value in windeye.statistics(query, key, stats).items():
            assert torch.equal(value, first[name]), name
        value = windeye.statistics(leaves[0], leaves[1], "entropy")["entropy"]
        grads.append(torch.autograd.grad(value.sum(), leaves))
        assert all(torch.equal(a, b) for a, b in zip(grads[0], grads[-1], strict=True))


def test_tensors_are_read_through_their_strides():
    query, key, options, _ = inputs(Case(20, batch=1, heads=2))
    heads_first = query.transpose(1, 2).contiguous().transpose(1, 2)
    every_second = torch.stack((key, key + 1), dim=-1).flatten(-2)[..., ::2]
    stats = {"H": Entropy(), "sum": ColumnSum()}
    plain = ours(query, key, stats, **options)
    for name, value in ours(heads_first, every_second, stats, **options).items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=0)


def test_on_cuda_it_is_the_first_that_is_tried():
    with FakeTensorMode():
        query = torch.empty(1, 10, 2, 16, device="cuda")
        runs = torch.empty(1, 1, 10, dtype=torch.int32, device="cuda")
        scores = Scores(query, query, Runs(runs, runs, 10, 0), 0.25)
        for stat in (Entropy(), ColumnSum(), SinkMass(), FutureInfluence()):
            assert planner.choose(scores, stat) == "triton"
        assert planner.choose(scores, TopKeys(33)) == "slab"


def test_what_it_cannot_run_is_told(monkeypatch):
    query = torch.zeros(1, 8, 2, 16, device=DEVICE)
    wide = torch.zeros(1, 8, 2, 300, device=DEVICE)
    with pytest.raises(ValueError, match="it holds up to 256 coordinates, got 300"):
        windeye.statistics(wide, wide, "entropy", route="triton")
    with pytest.raises(ValueError, match='it has no gradient of MaxWeight; route "slab" has'):
        windeye.statistics(query.requires_grad_(), query, "max_weight", route="triton")
    if DEVICE == "cpu":
        monkeypatch.delenv("TRITON_INTERPRET")
        scores = Scores(query, query, Runs.of_bound(Causal().bind((8,))), 0.25)
        assert "TRITON_INTERPRET=1" in triton.can_run(scores, Entropy())
