"""An inspection tells what the maps would have told."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from inspection.small import WORDS, save, text
from windeye.hf.pretrained import load
from windeye.inspection import (
    DEFAULT,
    ends,
    inspect,
    layers_of,
    ordinary_tokens,
    reach,
    read,
    report,
    statistics_of,
    table,
)
from windeye.models import transformer
from windeye.train.credit.rhythm import type_heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def loaded(folder):
    model, tokenizer = load(folder)
    maps = load(folder)[0]
    maps.set_attn_implementation("eager")
    reach(model)
    return model, tokenizer, maps


def maps_of(model, ids):
    with torch.no_grad():
        return torch.stack(model(ids, output_attentions=True).attentions)[:, 0].double()


def test_numbers_are_those_of_the_maps(loaded):
    model, tokenizer, eager = loaded
    reading = read(model, tokenizer, text(50))
    seen = inspect(model, reading.ids, reading.tokens, statistics_of(DEFAULT), name="small")
    weights = maps_of(eager, reading.ids)
    n = weights.shape[-1]
    back = torch.arange(n)[:, None] - torch.arange(n)
    within = (back >= 10) & (back <= 100)
    rows = {
        "entropy": -torch.xlogy(weights, weights).sum(-1),
        "mean_distance": (weights * back.abs()).sum(-1),
        "waad": (weights * back.clamp(0, 10)).sum(-1),
        "fai": (weights * within).sum(-2) / within.sum(0).clamp(min=1),
        "sink": weights[..., 0],
        "previous": (weights * (back == 1)).sum(-1),
        "self": weights.diagonal(dim1=-2, dim2=-1),
        "max_weight": weights.amax(-1),
        "received": weights.sum(-2) / (n - torch.arange(n)),
    }
    assert seen.per_head.keys() == rows.keys() == set(DEFAULT)
    for name, expected in rows.items():
        assert np.allclose(seen.per_head[name], expected.mean(-1), rtol=1e-3, atol=1e-5), name
        assert np.allclose(seen.per_token[name], expected.mean(1), rtol=1e-3, atol=1e-5), name
    types = type_heads(rows["mean_distance"].mean(-1), range(3))
    for name, heads in (("waad", types.local_heads), ("fai", types.global_heads)):
        expected = torch.stack([rows[name][place] for place in heads]).mean(0)
        assert np.allclose(seen.signals[name], expected, rtol=1e-3, atol=1e-5), name
    assert np.allclose(seen.signals["entropy"], rows["entropy"].mean((0, 1)), rtol=1e-3, atol=1e-5)
    received = rows["received"].mean((0, 1))[: n - n // 8]
    best = received.argsort(descending=True, stable=True)[:5]
    assert [place for place, _, _ in seen.top_tokens(5)] == best.tolist()
    assert [word for _, word, _ in seen.top_tokens(5)] == [reading.tokens[place] for place in best]
    assert not seen.both_ways


def test_some_layers_are_those_of_all_and_the_rest_does_not_run(loaded):
    model, tokenizer, _ = loaded
    reading = read(model, tokenizer, text(30))
    stats = statistics_of(["entropy", "received"])
    whole = inspect(model, reading.ids, reading.tokens, stats)
    ran = []
    hook = model.model.layers[2].register_forward_hook(lambda *_: ran.append(2))
    try:
        part = inspect(model, reading.ids, reading.tokens, stats, layers=[1], scan=whole.scan)
    finally:
        hook.remove()
    assert ran == []
    for name in stats:
        assert np.array_equal(part.per_head[name][0], whole.per_head[name][1])
        assert np.array_equal(part.per_token[name][0], whole.per_token[name][1])


def test_our_decoders_are_inspected_as_they_are():
    model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
    seen = inspect(model, torch.arange(9)[None], list("wind eyes"), statistics_of(["entropy"]))
    assert seen.per_head["entropy"].shape == (2, 4)
    assert seen.top_tokens() == []


def test_encoders_are_seen_to_look_both_ways():
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=70, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                 intermediate_size=32, attn_implementation="sdpa")).eval()  # fmt: skip
    reach(model)
    seen = inspect(model, torch.arange(9)[None], list("wind eyes"), statistics_of(["received", "entropy"]))
    assert seen.both_ways
    assert "next" in seen.scan.scores
    assert len(seen.top_tokens()) == 9


def test_progress_ends_with_the_last_layer(loaded):
    model, tokenizer, _ = loaded
    reading, told = read(model, tokenizer, text(20)), []
    inspect(
        model, reading.ids, reading.tokens, statistics_of(["entropy"]), progress=lambda *step: told.append(step),
        layers=[0, 1],
    )  # fmt: skip
    assert told == [("kinds of heads", 0.0), ("layer 0", 0.5), ("layer 1", 1.0)]


def test_the_page_holds_everything_and_asks_for_nothing(loaded):
    model, tokenizer, _ = loaded
    reading = read(model, tokenizer, text(40))
    seen = inspect(model, reading.ids, reading.tokens, statistics_of(DEFAULT), name="small <1>")
    page = report(seen, "windeye inspect 'a & b'")
    for outside in ("http://", "https://", "<link", ' src="/'):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")
    assert "small &lt;1&gt;" in page
    assert "a &amp; b" in page
    assert page.count("<svg") == len(DEFAULT) + len(seen.scan.scores)
    assert page.count("<canvas") == 1
    for name in DEFAULT:
        assert f"<b>{name}.</b>" in page


def test_the_page_of_many_tokens_stays_small(loaded):
    model, tokenizer, _ = loaded
    reading = read(model, tokenizer, text(60))
    seen = inspect(model, reading.ids, reading.tokens, statistics_of(DEFAULT))
    n = 2**15
    grown = type(seen)(**{
        **vars(seen), "tokens": tuple(" token" for _ in range(n)),
        "per_token": {k: np.resize(np.random.default_rng(0).random((30, n)), (3, n)) for k in seen.per_token},
        "signals": {k: np.resize(v, n) for k, v in seen.signals.items()},
    })  # fmt: skip
    assert len(report(grown, "c")) < 4 * 2**20


def test_tables_tell_the_numbers(loaded):
    model, tokenizer, _ = loaded
    reading = read(model, tokenizer, text(40))
    seen = inspect(model, reading.ids, reading.tokens, statistics_of(["entropy", "received"]))
    columns, rows = table.by_head(seen)
    assert columns == ("head", "entropy", "received", "kind")
    assert [row[0] for row in rows] == [f"{layer}.{head}" for layer in range(3) for head in range(4)]
    assert float(rows[5][1]) == pytest.approx(seen.per_head["entropy"][1, 1], rel=0.01)
    columns, rows = table.by_layer(seen)
    assert float(rows[2][1]) == pytest.approx(seen.per_head["entropy"][2].mean(), rel=0.01)
    plain = json.loads(json.dumps(seen.as_plain()))
    assert np.allclose(plain["per_head"]["entropy"], seen.per_head["entropy"], rtol=1e-5)
    assert np.allclose(plain["signals"]["received"], seen.signals["received"], rtol=1e-5)


def test_a_text_is_read_as_pieces_of_itself(loaded):
    model, tokenizer, _ = loaded
    reading = read(model, tokenizer, "w1 w2 nonsense w3")
    assert reading.tokens == ("w1", " w2", " nonsense", " w3")
    assert "".join(reading.tokens) == "w1 w2 nonsense w3"
    assert reading.ids.tolist() == [[4, 5, 1, 6]]
    assert read(model, tokenizer, "w1 w2 w3", most=2).tokens == ("w1", " w2")
    assert ends(tokenizer) == ([], [])
    assert ordinary_tokens(tokenizer).tolist() == [i for i, word in enumerate(WORDS) if word.startswith("w")]


def test_texts_that_cannot_be_read_are_refused(loaded):
    model, tokenizer, _ = loaded
    for empty in ("", " \n"):
        with pytest.raises(ValueError, match="the text is empty"):
            read(model, tokenizer, empty)
    with pytest.raises(ValueError, match=r"the text has 80 tokens, .* has positions for 64; .*--max-tokens 64"):
        read(model, tokenizer, text(80))
    assert len(read(model, tokenizer, text(80), most=70).tokens) == 70  # rotary positions go on
    with pytest.raises(ValueError, match="at least one token"):
        read(model, tokenizer, "w1", most=0)
    with pytest.raises(ValueError, match=r"ids must be \[1, tokens 2\]"):
        inspect(model, torch.zeros(1, 3, dtype=torch.long), ["a", "b"], statistics_of(["entropy"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["entropie"], r"no statistic 'entropie'; there are waad, fai, .*entropy"),
        (["waad:0"], "'waad:0' does not say a statistic: .*at least 1"),
        (["distance_mass"], "weight on keys :low:high"),
        (["entropy:3"], "'entropy:3' does not say"),
        (["fai:a"], "'fai:a' does not say"),
        ([], "no statistic is named"),
    ],
)
def test_words_that_say_no_statistic_are_refused(words, said):
    with pytest.raises(ValueError, match=said):
        statistics_of(words)


@pytest.mark.parametrize("words", ["", "a", "1-", "-1", "30", "2-30", "5-3"])
def test_layers_that_are_not_there_are_refused(words):
    with pytest.raises(ValueError, match=r"layers"):
        layers_of(words, 30)


def test_layers_in_words():
    assert layers_of("2-4, 0,3", 5) == (0, 2, 3, 4)
