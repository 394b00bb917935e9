"""Kinds of heads: built heads are told for what they are, scores are those of the map, real heads are found."""

import pytest
import torch
from torch import nn

from windeye.models import transformer
from windeye.ops.statistics import relation_of
from windeye.patterns import Causal, Full
from windeye.sites import AttentionCall, attention, record
from windeye.sites.heads import KINDS, HeadScan, aligned_heads, repeated_tokens, scan_heads

PERIOD, VOCAB = 12, 40
LOOKS = {
    "previous": lambda at, n: at == torch.arange(n)[:, None] - 1,
    "next": lambda at, n: at == torch.arange(n)[:, None] + 1,
    "self": lambda at, n: at == torch.arange(n)[:, None],
    "duplicate": lambda at, n: (at - torch.arange(n)[:, None]).abs() == PERIOD,
    "sink": lambda at, n: (at == 0).expand(n, n),
    "local": lambda at, n: (at - torch.arange(n)[:, None]).abs() <= 3,
}


class Built(nn.Module):
    """Two layers of heads that look where they are told to, and "induction" by comparing tokens."""

    attention_site = True

    def __init__(self, kinds, pattern):
        super().__init__()
        self.kinds, self.heads, self.pattern = kinds, len(kinds), pattern
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, ids):
        batch, n = ids.shape
        place = torch.eye(n).expand(batch, n, n)
        token = nn.functional.one_hot(ids, VOCAB).float()
        before = torch.cat((torch.zeros(batch, 1, VOCAB), token[:, :-1]), dim=1)
        query, key = [], []
        for kind in self.kinds:
            # What follows the token itself is no induction.
            told = kind == "induction"
            places = -LOOKS["next"](torch.arange(n), n).float() if told else LOOKS[kind](torch.arange(n), n).float()
            query.append(40 * torch.cat((places.expand(batch, n, n), token * told), dim=-1))
            key.append(torch.cat((place, before), dim=-1))
        query, key = torch.stack(query, dim=2), torch.stack(key, dim=2)
        return attention(self, AttentionCall(
            query, key, key[..., :1], 1.0, lambda: relation_of(self.pattern, query, key), lambda _q, _k, v: v,
        ))  # fmt: skip


@pytest.mark.parametrize("pattern", [Causal(), Full()])
def test_built_heads_are_told_for_what_they_are(pattern):
    both = isinstance(pattern, Full)
    kinds = [kind for kind in KINDS if both or kind != "next"]
    model = nn.Sequential(Built(kinds, pattern))
    scan = scan_heads(model, torch.arange(5, VOCAB), period=PERIOD, begin=[1], end=[2], both_ways=both)
    assert scan.kinds() == [kinds]
    for place, kind in enumerate(kinds):
        assert scan.scores[kind][0, place] > 0.85
        assert kind == "local" or scan.ranked(kind)[0][:2] == (0, place)


def test_scores_are_means_of_the_map():
    model = transformer(layers=2, dim=32, heads=4, vocab_size=VOCAB).double()
    vocabulary = torch.arange(3, VOCAB)
    ids = repeated_tokens(vocabulary, period=PERIOD, begin=[0, 1], seed=3)
    with record(model, ["q", "k"]) as seen, torch.no_grad():
        model(ids)
    n = ids.shape[1]
    logits = torch.einsum("lbthd,lbshd->lbhts", seen["q"], seen["k"]) * 8**-0.5
    weights = logits.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    scan = scan_heads(model, vocabulary, period=PERIOD, begin=[0, 1], seed=3)
    rows = range(2 + PERIOD, n)
    looked = {
        "previous": lambda t: [t - 1],
        "self": lambda t: [t],
        "duplicate": lambda t: [t - PERIOD],
        "induction": lambda t: [t - PERIOD + 1],
        "sink": lambda _: [0],
        "local": lambda t: range(t - 4, t + 1),
    }
    assert scan.scores.keys() == looked.keys()
    for kind, keys in looked.items():
        expected = sum(weights[..., t, s].mean(1) for t in rows for s in keys(t)) / len(rows)
        torch.testing.assert_close(scan.scores[kind], expected)
    some = scan_heads(model, vocabulary, period=PERIOD, begin=[0, 1], seed=3, layers=[1])
    torch.testing.assert_close(some.scores["sink"], scan.scores["sink"][1:])
    assert {layer for layer, _, _ in some.ranked("sink")} == {1}


def test_a_head_is_of_the_kind_that_tells_most_of_it():
    scores = {"previous": [0.9, 0.5, 0.1, 0.1], "sink": [0.2, 0.5001, 0.1, 0.1], "local": [1.0, 0.9, 0.8, 0.3]}
    scan = HeadScan({kind: torch.tensor([values]) for kind, values in scores.items()}, (7,))
    assert scan.kinds() == [["previous", "sink", "local", ""]]
    assert scan.kinds(threshold=0.85) == [["previous", "local", "", ""]]
    assert [(layer, head) for layer, head, _ in scan.ranked("sink", 2)] == [(7, 1), (7, 0)]
    with pytest.raises(ValueError, match="no kind 'copy'; there are previous, sink, local"):
        scan.ranked("copy")


def test_an_alignment_counts_the_weight_and_the_hits_of_the_queries_that_have_a_target():
    model = nn.Sequential(Built(["previous", "sink", "self"], Causal()))
    ids = torch.arange(8)[None]
    targets = torch.tensor([[-1, 0, 1, 2, -1, 3, 4, 5]])  # the previous token for three of six queries
    found = aligned_heads(model, ids, targets)
    torch.testing.assert_close(found.mass, torch.tensor([[3 / 6, 1 / 6, 0.0]]))
    torch.testing.assert_close(found.hits, torch.tensor([[3 / 6, 1 / 6, 0.0]]))
    one, candidates = torch.full((1, 8), -1), torch.zeros(1, 8, dtype=torch.bool)
    one[0, 3], candidates[0, 1:3] = 1, True
    alone = aligned_heads(model, ids, one, candidates=candidates)
    assert alone.hits.tolist() == [[0.0, 1.0, 1.0]]  # equal weights: the first key counts
    torch.testing.assert_close(alone.mass, torch.tensor([[0.0, 0.5, 0.5]]))


def test_errors_of_probes_and_alignments():
    model, ids = nn.Sequential(Built(["self"], Causal())), torch.arange(4)[None]
    with pytest.raises(ValueError, match="names no query"):
        aligned_heads(model, ids, torch.full((1, 4), -1))
    with pytest.raises(ValueError, match=r"targets must be \[batch, queries\] \(1, 4\)"):
        aligned_heads(model, ids, torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"keys below 4.* up to 4"):
        aligned_heads(model, ids, torch.tensor([[0, 1, 2, 4]]))
    with pytest.raises(ValueError, match=r"candidates must be \[batch, keys\] \(1, 4\)"):
        aligned_heads(model, ids, ids, candidates=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="period 9 needs as many different tokens, the vocabulary has 5"):
        repeated_tokens(torch.arange(5), period=9)
    with pytest.raises(ValueError, match="at least 2"):
        repeated_tokens(torch.arange(5), period=1)
