"""What answers read of their context, and steering towards it: equal to full maps, to official numbers, and to itself
over caches and padding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from golden import load
from windeye import SpanMass, statistics
from windeye.kernels.statistics.relation import Masked
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM, generate
from windeye.sites import AttentionCall, Hide, Keys, Where, attention, steer
from windeye.sites.context import allocation, context_scores, dependency, emphasis
from windeye.sites.until import until

TOKENS = 19


def decoder(layers=3, heads=4, kv_heads=None, window=None):
    torch.manual_seed(3)
    spec = AttentionSpec(heads, window=window, kv_heads=kv_heads)
    config = DecoderConfig(40, 32, (spec,) * layers, glu_dim=32, init_std=0.3)
    return DecoderLM(config).double().eval()


@torch.no_grad()
def full_maps(model, ids, factors=None):
    """Logits and the attention map of every layer, plainly; ``factors`` rescale weights of keys before each row is
    brought back to 1."""
    x, maps = model.embedding(ids), []
    n = ids.shape[1]
    place = torch.arange(n)
    for block in model.blocks:
        mixer = block.mixer
        query, key, value = mixer.project(block.mixer_norm(x), place[None])
        key, value = (t.repeat_interleave(mixer.heads // mixer.kv_heads, dim=2) for t in (key, value))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(mixer.head_dim)
        seen = place[:, None] >= place
        if mixer.window is not None:
            seen &= place[:, None] - place < mixer.window
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        if factors is not None:
            weights = weights * factors[:, None, None]
            weights = weights / weights.sum(dim=-1, keepdim=True)
        maps.append(weights)
        x = x + mixer.out_proj(torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(-2))
        x = x + block.channel_mixer(block.channel_norm(x))
    return model.logits(model.norm(x)), maps


@pytest.fixture
def ids():
    return torch.randint(40, (2, TOKENS))


def spans(*bounds, n=TOKENS):
    place = torch.arange(n)
    return torch.stack([(place >= start) & (place < stop) for start, stop in bounds])


two_turns = {
    "span": torch.stack([spans((1, 5), (9, 12)).any(dim=0), spans((0, 7), (11, 12)).any(dim=0)]),
    "answers": torch.stack([spans((6, 9), (13, TOKENS)), spans((8, 10), (14, 16))]),
}


@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("layer", [0, 2])
def test_scores_are_those_of_full_maps(ids, kv_heads, window, reduce, layer):
    model = decoder(kv_heads=kv_heads, window=window)
    weights = full_maps(model, ids)[1][layer]
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for row in range(2):
        for answer in range(2):
            of_tokens = []
            for y in two_turns["answers"][row, answer].nonzero()[:, 0]:
                by_head = [weights[row, h, y][two_turns["span"][row]].sum() for h in range(4)]
                of_tokens.append(max(by_head) if reduce == "max" else sum(by_head) / 4)
            expected[row, answer] = sum(of_tokens) / len(of_tokens)
    found = context_scores(model, ids, **two_turns, layer=layer, reduce=reduce)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    single = context_scores(model.float(), ids, **two_turns, layer=layer, reduce=reduce)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


def test_padding_changes_no_score(ids):
    model = decoder()
    alone = context_scores(model, ids, **two_turns, layer=1)
    for left in (0, 4):
        padded, padding = F.pad(ids, (left, 4 - left)), F.pad(torch.zeros_like(ids), (left, 4 - left), value=1).bool()
        # Places count from the first token, wherever the padding stands.
        behind = {name: F.pad(mask, (0, 4)) for name, mask in two_turns.items()}
        torch.testing.assert_close(context_scores(model, padded, **behind, layer=1, padding=padding), alone)


def test_layers_above_do_not_run(ids):
    model, ran = decoder(), []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    context_scores(model, ids, **two_turns, layer=1)
    assert ran == [0, 1]
    model(ids)
    assert ran == [0, 1, 0, 1, 2]


def test_an_error_within_a_shortened_pass_is_not_swallowed(ids):
    model = decoder()
    with pytest.raises(RuntimeError, match="mine"), until(model, 0):
        raise RuntimeError("mine")
    assert not model.blocks[0]._forward_hooks
    with pytest.raises(IndexError, match=r"layer must be in 0 \.\. 2, got 3"), until(model, 3):
        model(ids)


def test_uniform_attention_reads_the_share_of_the_span():
    mass = torch.tensor([[[7 / (place + 1)] * 3 for place in range(7, 12)]])
    expected = sum(7 / n for n in range(8, 13)) / 5
    assert dependency(mass, torch.ones(1, 1, 5, dtype=torch.bool)).item() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9))
def test_scores_lie_between_nothing_and_everything(seed, heads, tokens):
    generator = torch.Generator().manual_seed(seed)
    mass = torch.rand(2, tokens, heads, generator=generator)
    answers = torch.rand(2, 3, tokens, generator=generator) < 0.5
    most, mean = dependency(mass, answers), dependency(mass, answers, "mean")
    there = answers.any(dim=-1)
    assert bool(most[~there].isnan().all())
    assert bool(((mean <= most + 1e-6) & (mean >= 0) & (most <= 1))[there].all())
    assert bool((dependency(torch.ones_like(mass), answers)[there] == 1).all())
    assert bool((dependency(torch.zeros_like(mass), answers)[there] == 0).all())


def test_rows_that_are_no_answer_may_be_anything():
    mass = torch.tensor([[[torch.nan], [0.25]]])
    assert dependency(mass, torch.tensor([[[False, True]]])).item() == 0.25


@pytest.mark.parametrize("case", ["score_two_turns", "score_system_text_and_padding", "score_three_turns_open_end"])
def test_scores_are_the_official_ones(case):
    """Streamed over scores whose softmax is the given map: a one-hot query picks its row of logarithms."""
    meta, numbers = load("context-awareness", case)
    weights = numbers["input.attention"]
    heads, n, _ = weights.shape
    assert heads == len(meta["heads_used"])
    real = numbers["input.attention_mask"].bool()
    query = torch.eye(n, dtype=torch.float64)[None, :, None].expand(1, n, heads, n)
    key = weights.clamp(min=1e-300).log().permute(2, 0, 1)[None]
    seen = statistics(query, key, {"span": SpanMass(numbers["output.user_columns"][None])}, scale=1.0)["span"]
    torch.testing.assert_close(
        seen[0, real], torch.einsum("hqk,k->qh", weights, numbers["output.user_columns"].double())[real]
    )
    answers = numbers["output.response_rows"][None]
    found = dependency(seen, answers)
    torch.testing.assert_close(found[0], numbers["output.score_per_response"], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean(dim=1), numbers["output.score_mean"], rtol=0, atol=1e-10)
    instead = dependency(seen, answers, "mean")
    torch.testing.assert_close(instead[0], numbers["output.score_mean_over_heads_instead"], rtol=0, atol=1e-10)


class Given(nn.Module):
    """An attention site with given logits, which shows its weights."""

    attention_site = True

    def __init__(self, scores):
        super().__init__()
        batch, heads, n, keys = scores.shape
        mask = torch.isfinite(scores)

        def run(query, key, value):
            query, key, value = (t.transpose(1, 2) for t in (query, key, value))
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0).transpose(1, 2)

        def one_hot(size):
            return torch.eye(size, dtype=torch.float64)[None, :, None].expand(batch, size, heads, size)

        logits = scores.masked_fill(~mask, 0.0).permute(0, 3, 1, 2)
        relation = Masked(mask, 0)
        self.call = AttentionCall(one_hot(n), logits, one_hot(keys), 1.0, lambda: relation, run)

    def forward(self, _):
        return attention(self, self.call).transpose(1, 2)


@pytest.mark.parametrize("case", ["steer_single_section", "steer_two_sections_generated_keys"])
@pytest.mark.parametrize("how", ["fused", "row by row"])
def test_steering_follows_the_papers_rule_where_the_official_code_does_and_where_it_does_not(case, how):
    meta, numbers = load("context-awareness", case)
    scores = numbers["input.scores_masked"]
    batch, heads, n, _ = scores.shape
    span = torch.zeros(batch, n, dtype=torch.bool)
    for section in numbers["input.ranges"]:
        for row, (start, stop) in enumerate(section.tolist()):
            span[row, start:stop] = True
    prompt = meta["prompt_length"]
    edit = emphasis(span[:, :prompt], meta["alpha"])  # what is generated later lies outside by itself
    model = nn.Sequential(Given(scores))
    edits = [edit] if how == "fused" else [edit, Hide(Keys.at(10**6))]
    with steer(model, edits):
        found = model(torch.zeros(1))
    # The two-section case was made with a single-precision logarithm.
    expected = numbers["output.attention_paper_rule_all_heads"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert heads == meta["heads"]
    same = torch.allclose(expected, numbers["output.attention_reference"], atol=1e-6)
    assert same == (case == "steer_single_section")


def test_steering_is_rescaling_and_bringing_back_to_one(ids):
    model, span = decoder(kv_heads=2), spans((2, 6), (1, 9))
    for alpha in (0.95, 0.3, 1e-4, 2.5):
        factors = torch.where(span, 1.0, alpha).double()
        with steer(model, [emphasis(span, alpha)]):
            torch.testing.assert_close(model(ids), full_maps(model, ids, factors)[0], rtol=1e-6, atol=1e-6)


def test_one_changes_nothing(ids):
    model = decoder()
    plain = model(ids)
    with steer(model, [emphasis(spans((2, 6)), 1.0)]):
        torch.testing.assert_close(model(ids), plain)


def test_nothing_left_outside_is_hiding_it(ids):
    model, span = decoder(layers=1), spans((0, 6))
    with steer(model, [Hide(Keys.of(span, outside=True))]):
        hidden = model(ids)
    with steer(model, [emphasis(span, 1e-250)]):
        torch.testing.assert_close(model(ids), hidden)


def test_queries_before_the_span_stay_as_they_are(ids):
    model, span = decoder(layers=1), spans((8, 12))
    plain = model(ids)
    with steer(model, [emphasis(span, 1e-9)]):
        torch.testing.assert_close(model(ids)[:, :8], plain[:, :8])


def test_layers_and_heads_and_rows_can_be_chosen(ids):
    model, span = decoder(layers=1), spans((2, 6))
    plain = model(ids)
    with steer(model, [emphasis(span, 0.1, where=Where(rows="last"))]):
        last = model(ids)
    torch.testing.assert_close(last[:, :-1], plain[:, :-1])
    with steer(model, [emphasis(span, 0.1)]):
        torch.testing.assert_close(model(ids)[:, -1], last[:, -1])
    halves = [emphasis(span, 0.1, where=Where(heads=heads)) for heads in ((0, 1), (2, 3))]
    with steer(model, halves):
        torch.testing.assert_close(model(ids)[:, -1], last[:, -1])
    with steer(model, halves[:1]):
        assert not torch.allclose(model(ids)[:, -1], last[:, -1])


def test_generation_steers_away_from_what_it_writes(ids):
    model, span = decoder(), spans((2, 6), (1, 9))
    grown = ids
    for _ in range(8):
        outside = F.pad(torch.where(span, 1.0, 0.2), (0, grown.shape[1] - TOKENS), value=0.2).double()
        grown = torch.cat((grown, full_maps(model, grown, outside)[0][:, -1:].argmax(dim=-1)), dim=1)
    with steer(model, [emphasis(span, 0.2)]):
        written = generate(model, ids, 8)
    assert torch.equal(written, grown[:, TOKENS:])
    assert not torch.equal(written, generate(model, ids, 8))


def test_padding_on_the_left_changes_no_word(ids):
    model, span = decoder(), spans((2, 6), (1, 9))
    with steer(model, [emphasis(span, 0.2)]):
        alone = generate(model, ids, 6)
        padding = F.pad(torch.zeros_like(ids), (3, 0), value=1).bool()
        assert torch.equal(generate(model, F.pad(ids, (3, 0)), 6, padding=padding), alone)


def test_allocation_shares_out_a_row(ids):
    model = decoder()
    parts = spans((0, 3), (3, 11), (11, TOKENS)).expand(2, -1, -1)
    weights = full_maps(model, ids)[1][1]
    found = allocation(model, ids, parts, layer=1, row=-2)
    expected = torch.einsum("bhk,bsk->bhs", weights[:, :, -2], parts.double())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 4, dtype=torch.float64))


def test_bad_input_is_refused(ids):
    span = spans((2, 6), (1, 9))
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha must be positive and finite"):
            emphasis(span, alpha)
    with pytest.raises(ValueError, match=r"span must hold a token in every sequence, sequences \[1\] have none"):
        emphasis(span & torch.tensor([[True], [False]]), 0.5)
    with pytest.raises(ValueError, match='reduce must be "max" or "mean", got \'sum\''):
        dependency(torch.zeros(1, 2, 3), torch.ones(1, 1, 2, dtype=torch.bool), "sum")
    with pytest.raises(ValueError, match=r"span must be \[batch 2, tokens 19\]"):
        context_scores(decoder(), ids, span[:, :5], two_turns["answers"], layer=0)
