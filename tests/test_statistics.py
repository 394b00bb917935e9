"""Statistics that stream equal the same numbers read off whole maps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye
from oracles import statistics as oracle
from windeye.kernels.statistics import slab
from windeye.kernels.statistics.relation import Runs, Tabled
from windeye.patterns import Blocks, Causal, Documents, Expiry, Full, Neighborhood, Prefix, Sinks, Sliding

PATTERNS = [
    Causal(),
    Full(),
    Sliding(4),
    Sliding(3) | Sinks(2),
    Causal() | Prefix(3),
    Blocks(4) & Causal(),
    Neighborhood(5),
    Neighborhood(3, dilation=2),
]


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def on(device, query, key, stats, pattern=PATTERNS[0], **options):
    """Statistics of tensors on a device, brought back."""
    moved = {name: t.to(device) if isinstance(t, torch.Tensor) else t for name, t in options.items()}
    values = windeye.statistics(query.to(device), key.to(device), stats, pattern, **moved)
    return {name: value.cpu() for name, value in values.items()}


def problem(pattern, queries, keys, seed, *, heads=4, kv_heads=2, padding="none"):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, queries, heads, 8, generator=generator, dtype=torch.float64)
    key = torch.randn(2, keys, kv_heads, 8, generator=generator, dtype=torch.float64)
    hidden = torch.zeros(2, keys, dtype=torch.bool)
    if padding == "left":
        hidden[1, : keys // 3] = True
    if padding == "right":
        hidden[1, keys - keys // 3 :] = True
    if padding == "scattered":
        hidden = torch.rand(2, keys, generator=generator) < 0.4
    if padding == "everything":
        hidden[1] = True
    mask = pattern.bind((queries,), (keys,)).mask()[None, None] & ~hidden[:, None, None]
    return query, key, hidden, mask.expand(2, heads, -1, -1)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(
    pattern=st.sampled_from(PATTERNS),
    queries=st.integers(1, 14),
    more=st.integers(0, 5),
    padding=st.sampled_from(["none", "left", "right", "scattered", "everything"]),
    softcap=st.sampled_from([None, 1.5]),
    sinks=st.booleans(),
    seed=st.integers(0, 99),
)
def test_statistics_equal_those_of_whole_maps(device, pattern, queries, more, padding, softcap, sinks, seed):
    if isinstance(pattern, Neighborhood):
        queries, more = max(queries, 7), 0
    keys = queries + more
    query, key, hidden, mask = problem(pattern, queries, keys, seed, padding=padding)
    generator = torch.Generator().manual_seed(seed + 1)
    sink_logits = torch.randn(4, generator=generator, dtype=torch.float64) if sinks else None
    counted = torch.rand(2, queries, generator=generator) < 0.7
    spans = torch.rand(2, 3, keys, generator=generator) < 0.5
    seen = on(
        device, query, key,
        {
            "entropy": "entropy", "participation": "participation", "max": "max_weight", "mass": "row_mass",
            "far": windeye.MeanDistance(), "waad": windeye.WindowedDistance(3), "self": windeye.DistanceMass(0, 0),
            "near": windeye.DistanceMass(-1, 2), "spans": windeye.SpanMass(spans),
            "span": windeye.SpanMass(spans[:, 0]),
            "top": windeye.TopKeys(3), "sum": "column_sum", "mean": "column_mean",
            "fai": windeye.FutureInfluence(1, 4), "open": windeye.FutureInfluence(0, None),
        },
        pattern, key_padding=hidden, softcap=softcap, sink_logits=sink_logits, rows=counted,
    )  # fmt: skip
    maps = oracle.weights(query, key, mask, scale=8**-0.5, softcap=softcap, sinks=sink_logits)

    def close(name, truth):
        torch.testing.assert_close(seen[name], truth, rtol=1e-10, atol=1e-12, msg=lambda m: f"{name}: {m}")

    close("entropy", oracle.entropy(maps))
    close("participation", maps.square().sum(-1).transpose(1, 2))
    close("max", maps.amax(-1).transpose(1, 2))
    close("mass", maps.sum(-1).transpose(1, 2))
    close("far", oracle.distance(maps, abs, more))
    close("waad", oracle.distance(maps, lambda d: min(abs(d), 3), more))
    close("self", oracle.distance(maps, lambda d: d == 0, more))
    close("near", oracle.distance(maps, lambda d: -1 <= d <= 2, more))
    close("spans", torch.einsum("bhts,bjs->bthj", maps, spans.double()))
    close("span", torch.einsum("bhts,bs->bth", maps, spans[:, 0].double()))
    part = maps * counted[:, None, :, None]
    close("sum", part.sum(2).transpose(1, 2))
    many = (mask & counted[:, None, :, None]).sum(2).transpose(1, 2)
    close("mean", part.sum(2).transpose(1, 2) / many.clamp(min=1))
    close("fai", oracle.future_influence(maps, 1, 4, more, counted))
    close("open", oracle.future_influence(maps, 0, 10**6, more, counted))
    best = maps.topk(min(3, keys), dim=-1).values.transpose(1, 2)
    torch.testing.assert_close(seen["top"][..., : best.shape[-1], 1], best, rtol=1e-10, atol=1e-12)
    places = seen["top"][..., 0].long()
    chosen = maps.transpose(1, 2).gather(-1, places.clamp(min=0)).masked_fill(places < 0, 0.0)
    torch.testing.assert_close(chosen, seen["top"][..., 1], rtol=1e-10, atol=1e-12)


def test_slabs_of_any_height_give_the_same(monkeypatch):
    query, key, hidden, _ = problem(Causal(), 23, 29, 0, padding="left")
    stats = {"H": "entropy", "sum": "column_sum", "fai": windeye.FutureInfluence(2, 9), "top": windeye.TopKeys(2)}
    whole = windeye.statistics(query, key, stats, key_padding=hidden, route="slab")
    monkeypatch.setattr(slab, "BYTES", 2 * 4 * 29 * 8 * 3)
    parts = windeye.statistics(query, key, stats, key_padding=hidden, route="slab")
    for name in stats:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-12, atol=1e-14)


def test_statistics_are_differentiable(monkeypatch):
    monkeypatch.setattr(slab, "BYTES", 1)  # one row at a time
    query, key, hidden, _ = problem(Causal(), 5, 6, 0, padding="left")
    sinks = torch.randn(4, dtype=torch.float64)
    stats = {"H": "entropy", "far": "mean_distance", "c": "column_sum", "p": "participation"}

    def values(query, key, sinks):
        seen = windeye.statistics(query, key, stats, key_padding=hidden, sink_logits=sinks)
        return tuple(seen.values())

    leaves = [t.requires_grad_() for t in (query[..., :2], key[..., :2], sinks)]
    assert torch.autograd.gradcheck(values, leaves)


@pytest.mark.parametrize("device", DEVICES)
def test_a_bias_per_key_moves_the_weights(device):
    query, key, _, mask = problem(Causal(), 9, 9, 3)
    bias = torch.randn(1, 4, 1, 9, dtype=torch.float64)
    maps = oracle.weights(query, key, mask, scale=8**-0.5, bias=bias.expand(2, 4, 9, 9))
    seen = on(device, query, key, ["entropy"], bias=bias)["entropy"]
    torch.testing.assert_close(seen, oracle.entropy(maps), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_statistics_of_lifetimes_and_of_grids(device):
    query, key, _, _ = problem(Causal(), 7, 7, 5)
    expiry = Expiry(torch.tensor([[[2, 7, 3, 7, 5, 7, 7], [1, 2, 7, 4, 7, 6, 7]]] * 2, dtype=torch.int32))
    mask = expiry.bind((7,)).mask()
    maps = oracle.weights(query, key, mask.repeat_interleave(2, dim=1), scale=8**-0.5)
    seen = on(device, query, key, ["entropy", "column_mean"], Expiry(expiry.table.to(device)))
    torch.testing.assert_close(seen["entropy"], oracle.entropy(maps), rtol=1e-10, atol=1e-12)
    many = mask.repeat_interleave(2, dim=1).sum(2).transpose(1, 2)
    torch.testing.assert_close(seen["column_mean"], maps.sum(2).transpose(1, 2) / many.clamp(min=1))

    query, key = torch.randn(2, 1, 4, 5, 2, 8, dtype=torch.float64).unbind(0)
    pattern = Neighborhood(3, boundary="wrap")
    mask = pattern.bind((4, 5)).mask()[None, None].expand(1, 2, -1, -1)
    maps = oracle.weights(query.flatten(1, 2), key.flatten(1, 2), mask, scale=8**-0.5)
    seen = on(device, query, key, ["entropy", "column_sum"], pattern)
    torch.testing.assert_close(seen["entropy"], oracle.entropy(maps), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(seen["column_sum"], maps.sum(2).transpose(1, 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("hides", [False, True])
def test_tables_count_who_sees_a_key_as_their_runs_do(counted, hides):
    for pattern, grid in (
        (Neighborhood((3, 4), stride=(2, 1), is_causal=(False, True)), (5, 6)),
        (Neighborhood(3, dilation=2, boundary="wrap"), (6, 8)),
        (Neighborhood((2, 3, 3)), (3, 4, 5)),
    ):
        bound = pattern.bind(grid)
        rows = torch.rand(2, bound.tokens) < 0.5 if counted else None
        runs, tabled = Runs.of_bound(bound), Tabled(bound)
        if hides:
            hidden = torch.rand(2, bound.tokens) < 0.3
            runs, tabled = runs.without(hidden), tabled.without(hidden)
        found, truth = tabled.seen_by(rows), runs.seen_by(rows)
        assert torch.equal(*torch.broadcast_tensors(found, truth))


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.sampled_from([*PATTERNS, Documents((3, 0, 5, 6)) & Causal(), Neighborhood(4, dilation=3)]),
    padding=st.sampled_from(["none", "left", "right", "scattered", "everything"]),
    seed=st.integers(0, 99),
)
def test_runs_say_what_the_mask_says(pattern, padding, seed):
    _, _, hidden, mask = problem(pattern, 14, 14, seed, padding=padding)
    runs = Runs.of_bound(pattern.bind((14,))).without(hidden)
    assert torch.equal(runs.visible(slice(0, 14)).expand(2, 1, 14, 14)[:, 0], mask[:, 0])
    again = Runs.of_mask(mask[:, 0])
    assert torch.equal(again.visible(slice(3, 9))[:, 0], mask[:, 0, 3:9])
    assert torch.equal(runs.seen_by(None).expand(2, -1), mask[:, 0].sum(dim=1))
    assert torch.equal(runs.of_queries(2, 6).visible(slice(0, 4))[:, 0].expand(2, -1, -1), mask[:, 0, 2:6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stats": ["entropie"]}, "there is no statistic 'entropie'; by name there are column_mean"),
        ({"stats": []}, "stats names nothing"),
        ({"stats": {"x": 3}}, r"stats\['x'\] must be a statistic"),
        ({"route": "fast"}, 'route must be "auto" or one of'),
        ({"softcap": -1.0}, "softcap must be positive, got -1.0"),
        ({"sink_logits": torch.zeros(3)}, r"sink_logits must be \[heads 4\]"),
        ({"rows": torch.ones(1, 9, dtype=torch.bool)}, r"rows must be bool \[batch 2, queries 9\]"),
        ({"bias": torch.zeros(2, 4, 9)}, "bias must be"),
        ({"pattern": "causal"}, "pattern must be a windeye.Pattern"),
        ({"key_padding": torch.zeros(2, 9)}, "key_padding"),
        ({"stats": {"x": windeye.SpanMass(torch.ones(1, 8, dtype=torch.bool))}}, "spans are of batch 1 and 8 keys"),
    ],
)
def test_wrong_calls_say_what_would_be_right(options, message):
    query, key, _, _ = problem(Causal(), 9, 9, 0)
    stats = options.pop("stats", ["entropy"])
    with pytest.raises((ValueError, TypeError), match=message):
        windeye.statistics(query, key, stats, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: windeye.WindowedDistance(0), "window must be at least 1"),
        (lambda: windeye.FutureInfluence(-1, 3), "low must be at least 0"),
        (lambda: windeye.FutureInfluence(5, 3), "high 3 must not be below low 5"),
        (lambda: windeye.DistanceMass(2, 1), "high 1 must not be below low 2"),
        (lambda: windeye.TopKeys(True), "count must be an integer"),
        (lambda: windeye.SpanMass(torch.ones(2, 3)), "spans must be bool"),
    ],
)
def test_wrong_statistics_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


ROUTED = {
    "fused": {"mass": "row_mass", "sink": windeye.SinkMass(2), "spans": None},
    "band": {
        "waad": windeye.WindowedDistance(3), "previous": windeye.DistanceMass(1, 1),
        "ahead": windeye.DistanceMass(-3, 0), "fai": windeye.FutureInfluence(2, 6),
        "next": windeye.FutureInfluence(0, 0),
    },
    "cpu": {
        "H": "entropy", "p": "participation", "waad": windeye.WindowedDistance(3), "far": "mean_distance",
        "fai": windeye.FutureInfluence(2, 6), "got": "column_sum", "top": windeye.TopKeys(3), "spans": None,
    },
}  # fmt: skip
if "cuda" in DEVICES:
    ROUTED["triton"] = ROUTED["cpu"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("device", "route", "pattern"),
    [
        (device, route, pattern)
        for device in DEVICES
        for route in ROUTED
        for pattern in (Causal(), Full(), Sliding(5), Sliding(3) | Sinks(2))
        if (route != "fused" or pattern in (Causal(), Full())) and {"cpu": "cuda", "triton": "cpu"}.get(route) != device
    ],
    ids=str,
)
def test_routes_agree(device, route, pattern, dtype, monkeypatch):
    monkeypatch.setattr("windeye.kernels.statistics.band.TILE", 7)
    query, key, _, _ = problem(pattern, 37, 37, 4)
    query, key = query.to(dtype), key.to(dtype)
    spans = windeye.SpanMass(torch.rand(2, 9, 37, generator=torch.Generator().manual_seed(0)) < 0.5)
    stats = {name: spans if stat is None else stat for name, stat in ROUTED[route].items()}
    rows = torch.rand(2, 37, generator=torch.Generator().manual_seed(1)) < 0.5
    one = on(device, query, key, stats, pattern, rows=rows, route=route)
    truth = windeye.statistics(query.double(), key.double(), stats, pattern, rows=rows, route="slab")
    for name in stats:
        torch.testing.assert_close(one[name].double(), truth[name], rtol=2e-5, atol=2e-6)


def test_the_fused_route_is_differentiable():
    query, key, _, _ = problem(Causal(), 6, 6, 4)
    leaves = [query.requires_grad_(), key.requires_grad_()]
    spans = windeye.SpanMass(torch.rand(2, 2, 6) < 0.5)
    stats = {"spans": spans}
    assert torch.autograd.gradcheck(lambda q, k: windeye.statistics(q, k, stats, route="fused")["spans"], leaves)


@pytest.mark.parametrize(
    ("route", "stat", "options", "message"),
    [
        ("fused", "entropy", {}, "only sums of functions of the key"),
        ("fused", "sink_mass", {"pattern": Sliding(3)}, "a mask would be quadratic"),
        ("fused", "sink_mass", {"softcap": 3.0}, "logits are capped"),
        ("band", "column_sum", {}, "it needs more than the entries near the diagonal"),
        ("band", windeye.FutureInfluence(0, 5000), {}, "wider than 1024"),
        ("band", "windowed_distance", {"sink_logits": torch.zeros(4)}, "the rest of a row is not one minus the band"),
    ],
)
def test_routes_say_why_they_cannot(route, stat, options, message):
    query, key, _, _ = problem(Causal(), 9, 9, 0)
    with pytest.raises(ValueError, match=f'route "{route}" cannot take.*{message}'):
        windeye.statistics(query, key, {"x": stat}, route=route, **options)


@pytest.mark.parametrize("kind", ["kl", "js"])
def test_divergence_of_two_passes(kind, monkeypatch):
    monkeypatch.setattr(slab, "BYTES", 2 * 4 * 9 * 8 * 2)
    query, key, hidden, mask = problem(Causal(), 7, 9, 0, padding="left")
    other_query, other_key, _, _ = problem(Causal(), 7, 9, 1)
    value = windeye.divergence((query, key), (other_query, other_key), kind=kind, key_padding=hidden)
    one, other = (oracle.weights(q, k, mask, scale=8**-0.5) for q, k in ((query, key), (other_query, other_key)))

    def kl(p, q):
        return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1).transpose(1, 2)

    middle = (one + other) / 2
    truth = kl(one, other) if kind == "kl" else (kl(one, middle) + kl(other, middle)) / 2
    torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-12)
    same = windeye.divergence((query, key), (query, key), kind=kind, key_padding=hidden)
    torch.testing.assert_close(same, torch.zeros_like(same))
    leaves = [t[:1, ..., :2].clone().requires_grad_() for t in (query, key, other_query, other_key)]
    assert torch.autograd.gradcheck(lambda a, b, c, d: windeye.divergence((a, b), (c, d), kind=kind), leaves)


def test_divergences_that_cannot_be_taken():
    query, key, _, _ = problem(Causal(), 5, 5, 0)
    with pytest.raises(ValueError, match='kind must be "kl" or "js", got \'l2\''):
        windeye.divergence((query, key), (query, key), kind="l2")
    with pytest.raises(ValueError, match="the passes differ in shape"):
        windeye.divergence((query, key), (query[:, :4], key))
