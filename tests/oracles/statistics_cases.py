"""Attention of every kind that statistics are taken of, and its whole maps in float64."""

from dataclasses import dataclass

import torch

import windeye
from windeye import Causal, Documents, Full, Sinks, Sliding
from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.statistic import (
    DistanceMass,
    DistanceStatistic,
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


class LogDistance(DistanceStatistic):
    """A function of the distance that is flat nowhere."""

    def phi(self, distance):
        return (1.0 + distance.abs()).log()


@dataclass(frozen=True)
class Case:
    queries: int
    keys: int | None = None
    batch: int = 2
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 5
    pattern: windeye.Pattern = Causal()  # noqa: RUF009 - patterns are frozen
    softcap: float | None = None
    sinks: bool = False
    bias: tuple[bool, bool] | None = None
    """Whether it differs between batch entries, and between heads."""
    padding: str | None = None
    """left | random"""
    rows: bool = False
    spans: int = 3


CASES = [
    Case(1),
    Case(7, heads=1),
    Case(64, sinks=True),
    Case(65, softcap=2.0),
    Case(150, heads=6, kv_heads=2, head_dim=16),
    Case(130, heads=9, kv_heads=1, batch=1),  # more heads on one key head than share a tile
    Case(40, heads=18, kv_heads=2, batch=1),
    Case(100, heads=3, kv_heads=3, head_dim=33),
    Case(33, keys=170),
    Case(5, keys=200, sinks=True, softcap=5.0),
    Case(1, keys=130, pattern=Full()),
    Case(90, pattern=Full(), keys=77),
    Case(200, pattern=Sliding(9)),
    Case(200, pattern=windeye.Neighborhood(5, dilation=3)),
    Case(200, pattern=Sliding(17) | Sinks(2)),
    Case(160, pattern=Documents((3, 70, 20, 67)) & Causal()),
    Case(70, padding="left"),
    Case(140, padding="random", sinks=True),
    Case(90, bias=(True, True)),
    Case(90, bias=(False, True), softcap=3.0),
    Case(90, bias=(True, False), padding="left"),
    Case(150, rows=True),
    Case(90, spans=70),
]


def inputs(case, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    keys = case.keys or case.queries

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query = 1.5 * random(case.batch, case.queries, case.heads, case.head_dim)
    key = random(case.batch, keys, case.kv_heads, case.head_dim)
    options = {"pattern": case.pattern, "scale": 0.7, "softcap": case.softcap}
    if case.sinks:
        options["sink_logits"] = 2 * random(case.heads)
    if case.bias:
        shape = (case.batch if case.bias[0] else 1, case.heads if case.bias[1] else 1, 1, keys)
        options["bias"] = random(*shape)
    if case.padding == "left":
        options["key_padding"] = torch.arange(keys) < torch.arange(case.batch)[:, None] * 3 + keys // 5
    if case.padding == "random":
        options["key_padding"] = torch.rand(case.batch, keys, generator=generator) < 0.4
    if case.rows:
        options["rows"] = torch.rand(case.batch, case.queries, generator=generator) < 0.5
    spans = torch.rand(case.batch, case.spans, keys, generator=generator) < 0.3
    spans[:, 0] = (torch.arange(keys) >= 20) & (torch.arange(keys) < 100)  # whole blocks and parts of blocks
    return query.to(dtype), key.to(dtype), options, spans


def maps(query, key, *, pattern, scale, softcap=None, sink_logits=None, bias=None, key_padding=None, rows=None):
    """The map, in float64; and logits, distances, and which queries count."""
    query, key = query.double(), key.double().repeat_interleave(query.shape[2] // key.shape[2], dim=2)
    logits = scale * torch.einsum("bthd,bshd->bhts", query, key)
    if softcap:
        logits = softcap * (logits / softcap).tanh()
    if bias is not None:
        logits = logits + bias.double()
    mask = torch.as_tensor(pattern.bind((query.shape[1],), (key.shape[1],)).mask()).expand_as(logits)
    if key_padding is not None:
        mask = mask & ~key_padding[:, None, None]
    weights = torch.where(mask, logits, -torch.inf)
    if sink_logits is not None:
        sink = sink_logits.double()[:, None, None].expand(*logits.shape[:3], 1)
        weights = torch.cat((weights, sink), dim=-1)
    weights = weights.softmax(dim=-1).nan_to_num(0.0)[..., : key.shape[1]]
    place = torch.arange(query.shape[1]) + key.shape[1] - query.shape[1]
    distance = place[:, None] - torch.arange(key.shape[1])
    counted = torch.ones(query.shape[:2], dtype=torch.bool) if rows is None else rows
    return weights, mask, distance, counted.double()


def expected(query, key, options, spans):
    """Every statistic from the map, by its definition."""
    weights, mask, distance, counted = maps(query, key, **options)
    seen = mask.any(dim=2).any(dim=1).double()
    sinks = seen * (seen.cumsum(-1) <= 3)
    heads_last = {
        "entropy": -torch.xlogy(weights, weights).sum(-1),
        "squares": (weights**2).sum(-1),
        "most": weights.amax(-1),
        "mass": weights.sum(-1),
        "far": (weights * distance.abs()).sum(-1),
        "window": (weights * distance.abs().clamp(max=10)).sum(-1),
        "self": (weights * (distance == 0)).sum(-1),
        "around": (weights * ((distance >= -3) & (distance <= 70))).sum(-1),
        "log": (weights * (1.0 + distance.abs()).log()).sum(-1),
        "sinks": (weights * sinks[:, None, None]).sum(-1),
        "received": torch.einsum("bhts,bt->bhs", weights, counted),
    }
    lag = ((distance >= 4) & (distance <= 30)).double()
    queries = torch.einsum("bt,ts->bs", counted, lag)
    heads_last["influence"] = torch.einsum("bhts,bt,ts->bhs", weights, counted, lag) / queries.clamp(min=1)[:, None]
    queries = torch.einsum("bhts,bt->bhs", mask.double(), counted)
    heads_last["mean"] = heads_last["received"] / queries.clamp(min=1)
    found = {name: value.movedim(1, 2) for name, value in heads_last.items()}
    found["spans"] = torch.einsum("bhts,bjs->bthj", weights, spans.double())
    return found, weights


def asked(spans):
    """Every statistic, by the names of `expected`."""
    return {
        "entropy": Entropy(), "squares": Participation(), "most": MaxWeight(), "mass": RowMass(), "far": MeanDistance(),
        "window": WindowedDistance(10), "self": DistanceMass(0, 0), "around": DistanceMass(-3, 70),
        "log": LogDistance(), "sinks": SinkMass(3), "spans": SpanMass(spans), "received": ColumnSum(),
        "mean": ColumnMean(), "influence": FutureInfluence(4, 30), "top": TopKeys(4),
    }  # fmt: skip


def assert_top(top, weights, **tolerance):
    """The weights are the largest, in order, and each is that of its key; there is a key wherever one is seen."""
    key, weight = top[..., 0].long(), top[..., 1]
    count = min(top.shape[3], weights.shape[-1])
    best = weights.topk(count, dim=-1).values.movedim(1, 2)
    torch.testing.assert_close(weight[..., :count], best, **tolerance)
    own = weights.movedim(1, 2).gather(-1, key.clamp(min=0))
    torch.testing.assert_close(weight, own.masked_fill(key < 0, 0.0), **tolerance)
    missing = weights.movedim(1, 2).gt(0).sum(-1, keepdim=True) <= torch.arange(top.shape[3])
    assert bool((key[~missing] >= 0).all())
