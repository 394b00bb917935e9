"""Facts that are known of the heads of real models, found by the scan."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from hf.real import real
from windeye.hf.attach import attach
from windeye.inspection import ends, ordinary_tokens
from windeye.sites.heads import aligned_heads, scan_heads


@pytest.fixture
def attached():
    handles = []

    def load(name):
        model, tokenizer = real(name)
        handles.append(attach(model))
        return model, tokenizer

    yield load
    for handle in handles:
        handle.undo()


def test_induction_heads_and_sinks_of_a_language_model(attached):
    model, tokenizer = attached("smollm2-135m-instruct")
    scan = scan_heads(model, ordinary_tokens(tokenizer), period=48, batch=1)
    kinds = scan.kinds()
    induction = scan.ranked("induction", 5)
    assert induction[0][:2] == (18, 6)
    assert induction[0][2] > 0.85
    assert {(17, 3), (17, 4)} <= {place[:2] for place in induction}
    assert (kinds[18][6], kinds[17][3], kinds[17][4]) == ("induction",) * 3
    for layer in range(3, 9):
        assert 0.35 < scan.scores["sink"][layer].mean() < 0.85
    assert kinds[16][0] == "previous"


def test_a_head_maps_atoms_of_the_product_to_those_of_the_reactants(attached):
    """An amide coupling; atoms of the ring could be told either way round, so that its carbons count only as such."""
    model, tokenizer = attached("rxnmapper")
    ids = tokenizer("CC(=O)O.NCc1ccccc1>>CC(=O)NCc1ccccc1", return_tensors="pt").input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    arrow = tokens.index(">>")
    atoms = torch.tensor([[token.isalpha() for token in tokens]])
    before = atoms & (torch.arange(len(tokens)) < arrow)
    reactants = before[0].nonzero()[:, 0].tolist()
    product = (atoms & ~before)[0].nonzero()[:, 0].tolist()
    targets = torch.full_like(ids, -1)
    for place, own in zip(product, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], strict=True):
        targets[0, place] = reactants[own]
    assert [tokens[targets[0, place]] for place in product] == [tokens[place] for place in product]
    found = aligned_heads(model, ids, targets, candidates=before)
    assert found.hits.shape == (12, 8)
    assert found.hits[10, 5] == 1
    assert found.mass[10, 5] > 0.8
    assert found.hits[10].argmax() == 5
    assert all(row[5] > 0.9 for row in found.hits[2:].tolist())  # the layers share their weights


def test_an_encoder_has_heads_that_look_at_neighbours_and_rest_on_cls(attached):
    model, tokenizer = attached("all-minilm-l6-v2")
    begin, end = ends(tokenizer)
    scan = scan_heads(model, ordinary_tokens(tokenizer), period=32, batch=1, begin=begin, end=end, both_ways=True)
    best = {kind: scan.ranked(kind, 1)[0] for kind in scan.scores}
    assert {kind: place[:2] for kind, place in best.items() if place[2] > 0.5} == {
        "previous": (0, 2), "next": (1, 8), "duplicate": (2, 9), "sink": (1, 11), "local": (0, 2),
    }  # fmt: skip
    assert best["previous"][2] > 0.95
