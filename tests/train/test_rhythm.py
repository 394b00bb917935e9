"""WAAD and FAI in one streaming pass, equal to what full maps say."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

import golden
from oracles import rhythm as oracle
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.ops import FutureInfluence, MeanDistance, WindowedDistance, statistics
from windeye.patterns import Causal, Sliding
from windeye.sites import record
from windeye.train.credit import HeadTypes, middle_layers, rhythm, type_heads

CASES = ["basic_gqa", "left_pad_window_short_horizon", "softcap_sink", "alibi_horizon_past_end"]


def decoder(*mixers: AttentionSpec) -> DecoderLM:
    return DecoderLM(DecoderConfig(29, 24, mixers, glu_dim=16, init_std=0.5)).double().eval()


def scores_of(meta, numbers):
    """The pattern, the additive bias [layers, heads, n, n], the padding and the response of a golden case."""
    n = meta["length"]
    distance = (torch.arange(n)[:, None] - torch.arange(n)).double()
    bias = 0.3 * numbers["input.score_tilt_slope"][..., None, None] * distance
    if meta["alibi"]:
        bias = bias - numbers["input.alibi_slopes"][None, :, None, None] * distance
    pattern = Causal() if meta["sliding_window"] is None else Sliding(meta["sliding_window"])
    place = torch.arange(n)
    return pattern, bias, place < meta["left_padding"], place >= meta["response_start"]


@pytest.mark.parametrize("case", CASES)
def test_maps_written_out_equal_the_published_equations(case):
    meta, numbers = golden.load("preplan-anchor", case)
    pattern, bias, padding, response = scores_of(meta, numbers)
    mask = pattern.bind((meta["length"],)).mask() & ~padding
    weights = oracle.maps(
        numbers["input.q"], numbers["input.k"], mask=mask, softcap=meta["softcap"], bias=bias,
        sink_logits=numbers.get("input.sink_logits"),
    )  # fmt: skip
    rows = response.nonzero().flatten().tolist()
    for place, (layer, head) in enumerate(product(range(meta["layers"]), range(meta["heads"]))):
        one = weights[layer, head]
        golden.same(oracle.span(one, rows), numbers["output.head_span"][layer, head].item())
        waad = torch.tensor(oracle.windowed_distance(one, rows, meta["W"]), dtype=torch.float64)
        fai = torch.tensor(oracle.future_influence(one, rows, meta["H_lo"], meta["H_hi"]), dtype=torch.float64)
        golden.same(waad, numbers["output.waad_per_head"][place])
        golden.same(fai, numbers["output.fai_per_head"][place])


@pytest.mark.parametrize("case", CASES)
def test_streaming_equals_the_published_equations(case):
    """Grouped heads, left padding, a window, a soft cap, sinks, ALiBi, and a horizon beyond the end."""
    meta, numbers = golden.load("preplan-anchor", case)
    pattern, bias, padding, response = scores_of(meta, numbers)
    stats = {
        "span": MeanDistance(),
        "waad": WindowedDistance(meta["W"]),
        "fai": FutureInfluence(meta["H_lo"], meta["H_hi"]),
        "open": FutureInfluence(1, None),
    }
    found = []
    for layer in range(meta["layers"]):
        query, key = (numbers[name][layer].transpose(0, 1)[None] for name in ("input.q", "input.k"))
        sinks = numbers["input.sink_logits"][layer] if meta["sink"] else None
        found.append(
            statistics(
                query,
                key,
                stats,
                pattern,
                softcap=meta["softcap"],
                sink_logits=sinks,
                bias=bias[layer][None],
                key_padding=padding[None],
                rows=response[None],
            )
        )
    spans = torch.stack([one["span"][0, response].mean(dim=0) for one in found])
    golden.same(spans, numbers["output.head_span"])
    heads = type_heads(spans, range(meta["layers"]))
    for chosen, name in ((heads.local_heads, "local"), (heads.global_heads, "global")):
        numbered = sorted(layer * meta["heads"] + head for layer, head in chosen)
        assert numbered == sorted(numbers[f"output.heads_{name}"].tolist())
    for name, chosen, expected in (
        ("waad", heads.local_heads, "output.waad"),
        ("fai", heads.global_heads, "output.fai"),
        ("open", heads.global_heads, "output.fai_open_horizon"),
    ):
        per_head = torch.stack([one[name][0, response] for one in found])
        golden.same(torch.stack([per_head[place[0], :, place[1]] for place in chosen]).mean(0), numbers[expected])


@pytest.mark.parametrize("case", CASES)
def test_heads_may_be_averaged_before_or_after(case):
    meta, numbers = golden.load("preplan-anchor", case)
    rows = scores_of(meta, numbers)[3].nonzero().flatten().tolist()
    waad = oracle.windowed_distance(numbers["output.attention_local_mean"], rows, meta["W"])
    fai = oracle.future_influence(numbers["output.attention_global_mean"], rows, meta["H_lo"], meta["H_hi"])
    golden.same(torch.tensor(waad, dtype=torch.float64), numbers["output.waad"])
    golden.same(torch.tensor(fai, dtype=torch.float64), numbers["output.fai"])


def hand_made(logits):
    """WAAD with window 4 and FAI over lags 2 to 5 of one head whose logits are given."""
    n = len(logits)
    query, key = torch.eye(n, dtype=torch.float64), torch.tensor(logits, dtype=torch.float64).T
    stats = {"waad": WindowedDistance(4), "fai": FutureInfluence(2, 5)}
    found = statistics(query[None, :, None], key[None, :, None], stats, scale=1.0)
    return found["waad"][0, :, 0], found["fai"][0, :, 0]


def test_a_head_that_looks_at_itself_has_neither_signal():
    waad, fai = hand_made([[1e3 * (t == s) for s in range(9)] for t in range(9)])
    assert waad.abs().max() < 1e-12
    assert fai.abs().max() < 1e-12


def test_a_head_that_looks_at_the_first_token_has_the_capped_distance():
    waad, fai = hand_made([[1e3 * (s == 0) for s in range(9)] for _ in range(9)])
    golden.same(waad, torch.arange(9).clamp(max=4).double())
    golden.same(fai, torch.eye(9, dtype=torch.float64)[0])


def test_a_head_that_looks_evenly_has_the_mean_capped_distance():
    waad, _ = hand_made([[0.0] * 9 for _ in range(9)])
    expected = [sum(min(j, 4) for j in range(t + 1)) / (t + 1) for t in range(9)]
    golden.same(waad, torch.tensor(expected, dtype=torch.float64))


def test_a_token_that_all_later_ones_give_a_share_has_that_influence():
    share = 0.3
    odds = [math.log(share / (1 - share) * max(t, 1)) for t in range(9)]
    _, fai = hand_made([[odds[t] * (s == 2) for s in range(9)] for t in range(9)])
    assert fai[2].item() == pytest.approx(share)


def by_maps(model, ids, response, layers, *, window, low, high, padding=None):
    """Spans, and (WAAD, FAI) of every head, from the full maps of each sequence without its padding."""
    heads = model.config.mixers[0].heads
    spans = torch.zeros(len(ids), len(layers), heads, dtype=torch.float64)
    signals = torch.zeros(2, len(layers), heads, *ids.shape, dtype=torch.float64)
    for row in range(len(ids)):
        there = torch.ones(ids.shape[1], dtype=torch.bool) if padding is None else ~padding[row]
        with record(model, ["q", "k"]) as kept, torch.no_grad():
            model(ids[row : row + 1, there])
        places = there.nonzero().flatten()
        rows = response[row, there].nonzero().flatten().tolist()
        for at, layer in enumerate(layers):
            query, key = (kept[site, layer].transpose(1, 2) for site in ("q", "k"))
            mask = model.blocks[layer].mixer.pattern.bind((len(places),)).mask()
            for head, weights in enumerate(oracle.maps(query, key, mask=mask)[0]):
                spans[row, at, head] = oracle.span(weights, rows)
                found = (
                    oracle.windowed_distance(weights, rows, window),
                    oracle.future_influence(weights, rows, low, high),
                )
                for kind, values in enumerate(found):
                    signals[kind, at, head, row, places[rows]] = torch.tensor(values, dtype=torch.float64)
    return spans.mean(dim=0), signals


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize(
    "spec",
    [AttentionSpec(4), AttentionSpec(4, kv_heads=2), AttentionSpec(4, window=6)],
    ids=["full", "grouped", "window"],
)
def test_one_pass_over_a_model_equals_its_full_maps(spec, side):
    model, ids = decoder(spec, spec, spec), torch.randint(29, (3, 23))
    place = torch.arange(23)
    empty = torch.tensor([0, 5, 11])[:, None]
    padding = {"none": None, "left": place < empty, "right": place >= 23 - empty}[side]
    there = torch.ones_like(ids, dtype=torch.bool) if padding is None else ~padding
    response = there & (there.cumsum(dim=1) > 4)
    layers = (0, 2)
    found = rhythm(model, ids, response, layers=layers, window=5, low=2, high=7, padding=padding)
    spans, (waad, fai) = by_maps(model, ids, response, layers, window=5, low=2, high=7, padding=padding)
    golden.same(found.spans, spans)
    assert found.heads == type_heads(spans, layers)
    assert len(found.heads.local_heads) == len(found.heads.global_heads) == 2
    for signal, expected, chosen in (
        (found.waad, waad, found.heads.local_heads),
        (found.fai, fai, found.heads.global_heads),
    ):
        golden.same(signal, torch.stack([expected[layers.index(at), head] for at, head in chosen]).mean(dim=0))


@pytest.mark.parametrize("left", [False, True])
def test_a_model_of_transformers_is_read_as_its_own_maps_say(left):
    transformers = pytest.importorskip("transformers")
    from windeye.hf.attach import attach

    config = transformers.LlamaConfig(
        vocab_size=29, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).double().eval()
    ids = torch.randint(29, (2, 20))
    empty = torch.tensor([0, 6])[:, None] if left else torch.zeros(2, 1)
    padding = torch.arange(20) < empty
    response = ~padding & (torch.arange(20) >= 9)
    with torch.no_grad():
        maps = [model(ids[row : row + 1, ~padding[row]], output_attentions=True).attentions for row in range(2)]
    with attach(model):
        found = rhythm(model, ids, response, window=4, low=2, high=6, padding=padding)
    assert found.layers == (1, 2)
    for row in range(2):
        rows = response[row, ~padding[row]].nonzero().flatten().tolist()
        near, far = (
            torch.stack([maps[row][layer][0, head] for layer, head in chosen]).mean(dim=0)
            for chosen in (found.heads.local_heads, found.heads.global_heads)
        )
        waad, fai = oracle.windowed_distance(near, rows, 4), oracle.future_influence(far, rows, 2, 6)
        for signal, expected in ((found.waad, waad), (found.fai, fai)):
            # Its maps come from a softmax in float32, whatever the model.
            assert signal[row, response[row]].tolist() == pytest.approx(expected, abs=1e-6)


def test_horizon_beyond_the_end_and_window_beyond_the_length():
    model, ids = decoder(AttentionSpec(4)), torch.randint(29, (2, 12))
    response = torch.ones_like(ids, dtype=torch.bool)
    every = tuple((0, head) for head in range(4))
    found = rhythm(model, ids, response, layers=[0], heads=HeadTypes(every, every), window=100, low=50, high=60)
    assert not found.fai.any()
    golden.same(found.waad.mean(), found.spans.mean())


def test_a_response_of_one_token():
    model, ids = decoder(AttentionSpec(4)), torch.randint(29, (1, 12))
    response = torch.arange(12)[None] == 7
    found = rhythm(model, ids, response, layers=[0], low=1)
    assert not found.fai.any()
    assert found.waad[0, 7] > 0
    assert int(found.waad.count_nonzero()) == 1


def test_sequences_do_not_know_of_each_other():
    model, ids = decoder(AttentionSpec(4)), torch.randint(29, (3, 20))
    response = torch.ones_like(ids, dtype=torch.bool)
    heads = rhythm(model, ids, response, layers=[0]).heads
    order = torch.tensor([2, 0, 1])
    whole, mixed = (rhythm(model, some, response, heads=heads, low=1, high=5) for some in (ids, ids[order]))
    golden.same(mixed.waad, whole.waad[order])
    golden.same(mixed.fai, whole.fai[order])


def test_signals_of_a_model_in_training_have_no_gradient_and_leave_it_in_training():
    model, ids = decoder(AttentionSpec(4)).train(), torch.randint(29, (1, 12))
    found = rhythm(model, ids, torch.ones_like(ids, dtype=torch.bool), layers=[0])
    assert not found.waad.requires_grad
    assert model.training


@pytest.mark.parametrize(
    ("layers", "expected"), [(36, (12, 15, 18, 21, 24)), (30, (10, 12, 15, 18, 20)), (1, (0,)), (4, (1, 2))]
)
def test_the_middle_layers(layers, expected):
    assert middle_layers(layers) == expected


def test_heads_are_typed_by_span_with_ties_in_order():
    spans = torch.tensor([[3.0, 1.0, 2.0, 2.0], [9.0, 2.0, 2.0, 8.0]])
    typed = type_heads(spans, [4, 6], local_share=0.3, global_share=0.25)
    assert typed.local_heads == ((4, 1), (4, 2))
    assert typed.global_heads == ((6, 0), (6, 3))
    assert typed.layers == (4, 6)


MODEL_IDS = torch.zeros(1, 8, dtype=torch.long)
ALL = torch.ones(1, 8, dtype=torch.bool)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"response": ALL[:, :5]}, ValueError, r"response must be as ids \(1, 8\), got \(1, 5\)"),
        ({"response": ~ALL}, ValueError, r"it has none in rows \[0\]"),
        ({"response": ALL, "padding": ALL}, ValueError, "response marks tokens that padding says are none"),
        ({"response": ALL, "low": -1}, ValueError, "low must be at least 0, got -1"),
        ({"response": ALL, "low": 5, "high": 4}, ValueError, "high 4 must not be below low 5"),
        ({"response": ALL, "local_share": 0.6, "global_share": 0.6}, ValueError, "at most 1 together, got 0.6 and 0.6"),
        ({"response": ALL, "layers": [3]}, IndexError, "layers names layer 3; the model has layers 0 to 0"),
        ({"response": ALL, "layers": [0], "heads": HeadTypes(((1, 0),), ((0, 0),))}, ValueError, "heads are of layers"),
    ],
)  # fmt: skip
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        rhythm(decoder(AttentionSpec(2)), MODEL_IDS, **wrong)
