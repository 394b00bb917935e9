"""The cache contract of transformers, kept by states."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from transformers.cache_utils import Cache

from hf.small import model_of, prompts
from nn.mixer_kit import same, same_state
from windeye.hf import StateCache
from windeye.models import AttentionSpec, ConvolutionSpec, LightningSpec

KEEPS_ALL = (AttentionSpec(), AttentionSpec(kv_heads=2))
FORGETS = (AttentionSpec(), LightningSpec(), ConvolutionSpec())


def filled(specs, *lengths):
    model = model_of(*specs)
    ids, mask = prompts(*lengths)
    cache = StateCache()
    model(ids, attention_mask=mask, cache=cache)
    return model, ids, mask, cache


def test_it_counts_columns_and_its_state_counts_tokens():
    *_, cache = filled(FORGETS, 6, 2, 4)
    assert isinstance(cache, Cache)
    assert cache.get_seq_length() == cache.get_seq_length(2) == 6
    assert cache.state.seen.tolist() == [6, 2, 4]
    assert cache.is_initialized
    assert not cache.is_compileable
    assert "6 columns" in repr(cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert not cache.is_initialized


def test_sequences_are_reordered_repeated_and_chosen():
    model, ids, mask, cache = filled(FORGETS, 6, 2, 4)
    before = cache.state
    index = torch.tensor([2, 0, 0])
    cache.reorder_cache(index)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3, 5]))
    token = torch.tensor([[3], [4], [5]])
    grown = torch.cat((mask[index], torch.ones(3, 1, dtype=torch.long)), dim=1)
    expected = model(torch.cat((ids[index], token), dim=1), attention_mask=grown).logits[:, -1:]
    same(model(token, attention_mask=grown, cache=cache).logits, expected)
    assert before.seen.tolist() == [6, 2, 4]


def test_an_empty_cache_takes_every_operation():
    cache = StateCache()
    for change in (cache.reset, lambda: cache.crop(-2), lambda: cache.batch_repeat_interleave(2)):
        change()
    cache.reorder_cache(torch.tensor([0]))
    assert cache.get_seq_length() == 0
    assert cache.is_croppable


@pytest.mark.parametrize(("tokens", "kept"), [(-2, 4), (4, 4), (0, 6), (9, 6), (-9, 0)])
def test_cropping_is_as_if_the_rest_had_not_been_passed(tokens, kept):
    model, ids, _, cache = filled(KEEPS_ALL, 6, 6)
    assert cache.is_croppable
    cache.crop(tokens)
    assert cache.get_seq_length() == kept
    same_state(cache.state, model.decoder(ids[:, :kept], return_state=True)[1])


def test_what_cannot_be_cropped_says_why():
    *_, cache = filled(FORGETS, 6)
    assert not cache.is_croppable
    with pytest.raises(ValueError, match="RecurrentState cannot be cropped to 5 tokens"):
        cache.crop(-1)
    *_, cache = filled(KEEPS_ALL, 6, 4)
    with pytest.raises(ValueError, match=r"of 6 columns its sequences have \[6, 4\] tokens"):
        cache.crop(-1)
    assert cache.get_seq_length() == 6


def test_it_is_of_no_use_to_other_models():
    with pytest.raises(TypeError, match="StateCache is the cache of WindeyeForCausalLM"):
        StateCache().update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0)
