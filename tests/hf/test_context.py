"""Scores of answers and steering on models of transformers: equal to their own full maps, over padding and caches."""

import math

import pytest
import torch
from torch.nn import functional as F

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from windeye.hf.attach import attach  # noqa: E402
from windeye.sites import context_scores, emphasis, steer  # noqa: E402

TOKENS, LAYERS, HEADS = 14, 3, 4


def llama(**changed):
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, initializer_range=0.3, **changed,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def model():
    return llama()


@pytest.fixture
def ids():
    return torch.randint(40, (2, TOKENS))


def maps(model, ids, **inputs):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(ids, output_attentions=True, **inputs).attentions
    model.set_attn_implementation("sdpa")
    return found


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_full_maps_whatever_side_is_padded(model, ids, side):
    mask = torch.ones_like(ids)
    mask[1, slice(0, 3) if side == "left" else slice(TOKENS - 3, None)] = 0
    place = torch.arange(TOKENS).expand(2, -1)
    span, answers = (place >= 4) & (place < 7), torch.stack(((place >= 8) & (place < 10), place == 10), dim=1)
    for layer, weights in enumerate(maps(model, ids, attention_mask=mask)):
        reads = torch.einsum("bhqk,bk->bhq", weights, span.float())
        rows = {"max": reads.amax(dim=1), "mean": reads.mean(dim=1)}
        with attach(model):
            for reduce, of_tokens in rows.items():
                expected = torch.stack(
                    [(of_tokens * answers[:, a]).sum(dim=1) / answers[:, a].sum(dim=1) for a in range(2)], dim=1
                )
                found = context_scores(model, ids, span, answers, layer=layer, reduce=reduce, attention_mask=mask)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_layers_above_are_skipped(model, ids):
    ran = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    place = torch.arange(TOKENS).expand(2, -1)
    with attach(model):
        context_scores(model, ids, place < 4, (place > 8)[:, None], layer=1)
    assert ran == [0, 1]


def biased(model, ids, bias):
    """Logits with a bias per key, added to the mask that the model makes."""
    n = ids.shape[1]
    causal = torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    with torch.no_grad():
        return model(ids, attention_mask=causal + bias[:, None, None]).logits


def test_steering_is_a_bias_on_the_keys_outside(model, ids):
    place = torch.arange(TOKENS).expand(2, -1)
    span = torch.stack(((place[0] >= 2) & (place[0] < 6), (place[1] >= 1) & (place[1] < 9)))
    expected = biased(model, ids, math.log(0.2) * ~span)
    with attach(model), steer(model, [emphasis(span, 0.2)]), torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_generation_steers_away_from_what_it_writes(model, ids):
    place = torch.arange(TOKENS).expand(2, -1)
    span = torch.stack(((place[0] >= 2) & (place[0] < 6), (place[1] >= 1) & (place[1] < 9)))
    grown = ids
    for _ in range(6):
        outside = F.pad(~span, (0, grown.shape[1] - TOKENS), value=True)
        grown = torch.cat((grown, biased(model, grown, math.log(0.2) * outside)[:, -1:].argmax(dim=-1)), dim=1)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with attach(model):
        with steer(model, [emphasis(span, 0.2)]):
            written = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert torch.equal(written, grown)
        assert not torch.equal(model.generate(ids, attention_mask=torch.ones_like(ids), **options), grown)

        # On the left of the shorter of two prompts stands padding; spans are of the padded rows.
        padded, mask = F.pad(ids, (3, 0)), F.pad(torch.ones_like(ids), (3, 0))
        with steer(model, [emphasis(F.pad(span, (3, 0)), 0.2)]):
            assert torch.equal(model.generate(padded, attention_mask=mask, **options)[:, 3:], grown)
