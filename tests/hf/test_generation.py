"""`generate` of transformers over our states is a pass over the whole text for each token."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from transformers.cache_utils import DynamicCache

from hf.small import VOCAB, model_of, of_kind, prompts
from models.test_generate import greedy_by_hand
from windeye.hf import StateCache
from windeye.hf.cache import CACHE
from windeye.models import MIXERS, AttentionSpec, ConvolutionSpec, LightningSpec, TaylorSpec, generate

every_kind = pytest.mark.parametrize("kind", list(MIXERS))
HYBRID = (LightningSpec(lrpe=True), TaylorSpec(feature_dim=3), AttentionSpec(window=3), ConvolutionSpec())


@every_kind
def test_prompts_of_several_lengths_continue_as_if_alone(kind):
    model = of_kind(kind)
    ids, mask = prompts(6, 2, 4)
    new = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)[:, 6:]
    for row in range(3):
        assert torch.equal(new[row : row + 1], greedy_by_hand(model.decoder, ids[row : row + 1, mask[row] == 1], 6))
    assert torch.equal(new, generate(model.decoder, ids, 6, padding=mask == 0))


@every_kind
def test_beams_are_those_of_a_search_without_a_cache(kind):
    model = of_kind(kind)
    ids, mask = prompts(5, 2)
    call = {"attention_mask": mask, "max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    assert torch.equal(model.generate(ids, **call), model.generate(ids, use_cache=False, **call))


@every_kind
def test_draws_are_those_of_a_run_without_a_cache(kind):
    model = of_kind(kind)
    ids, mask = prompts(3, 5)
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        call = {"do_sample": True, "temperature": 2.0, "top_k": 9, "num_return_sequences": 2, "use_cache": use_cache}
        drawn.append(model.generate(ids, attention_mask=mask, max_new_tokens=6, **call))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_the_best_beam_is_the_best_of_all_sequences():
    """With as many beams as there are beginnings nothing is lost: the likeliest of all continuations is found."""
    model = model_of(*HYBRID)
    ids, _ = prompts(4)
    every = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB))
    whole = torch.cat((ids.expand(len(every), -1), every), dim=1)
    log_p = model.decoder(whole).log_softmax(-1)[:, -3:-1].gather(-1, every[..., None]).sum(dim=(1, 2))
    best = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, num_beams=VOCAB, do_sample=False)
    assert torch.equal(best[0, 4:], every[log_p.argmax()])


def test_a_prompt_may_come_in_chunks():
    model = model_of(*HYBRID)
    ids, mask = prompts(9, 3)
    call = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, prefill_chunk_size=2, **call), model.generate(ids, **call))


def test_a_conversation_goes_on_with_its_cache():
    model = model_of(*HYBRID)
    ids, mask = prompts(6, 4)
    call = {"max_new_tokens": 4, "do_sample": False}
    cache = StateCache()
    first = model.generate(ids, attention_mask=mask, **{CACHE: cache}, **call)
    turn = torch.cat((first, torch.randint(1, VOCAB, (2, 3))), dim=1)
    mask = torch.cat((mask, torch.ones(2, 7, dtype=torch.long)), dim=1)
    again = model.generate(turn, attention_mask=mask, **{CACHE: cache}, **call)
    assert torch.equal(again, model.generate(turn, attention_mask=mask, **call))
    assert cache.get_seq_length() == again.shape[1] - 1
    assert cache.state.seen.tolist() == [16, 14]


def test_one_prefix_is_continued_by_many():
    model = model_of(*HYBRID)
    prefix, _ = prompts(6)
    turns = torch.randint(1, VOCAB, (3, 2))
    whole = torch.cat((prefix.expand(3, -1), turns), dim=1)
    _, state = model.decoder(prefix, return_state=True)
    cache = StateCache(state)
    cache.batch_repeat_interleave(3)
    call = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(whole)}
    assert torch.equal(model.generate(whole, **{CACHE: cache}, **call), model.generate(whole, **call))
    assert state.seen.tolist() == [6]


def test_sequences_end():
    model = model_of(*HYBRID)
    ids, mask = prompts(5, 5)
    free = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)[:, 5:]
    end = free[0, 2].item()
    new = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=end)[:, 5:]
    for own, ended in zip(free.tolist(), new.tolist(), strict=True):
        cut = own.index(end) + 1 if end in own else len(own)
        assert ended == (own[:cut] + [0] * 8)[: new.shape[1]]


def test_a_draft_is_verified_where_all_of_the_past_is_kept():
    model, draft = model_of(AttentionSpec(), AttentionSpec()), model_of(AttentionSpec())
    ids, mask = prompts(5)
    call = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(ids, assistant_model=draft, **call), model.generate(ids, **call))


@pytest.mark.parametrize("spec", [LightningSpec(), TaylorSpec(), AttentionSpec(window=3), ConvolutionSpec()], ids=str)
def test_a_draft_is_refused_where_the_past_is_forgotten(spec):
    model, draft = model_of(AttentionSpec(), spec), model_of(AttentionSpec())
    ids, mask = prompts(5)
    with pytest.raises(ValueError, match="cropped"):
        model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, assistant_model=draft)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cache_implementation": "static"}, ValueError, "cache_implementation='static': a windeye decoder"),
        ({CACHE: DynamicCache()}, TypeError, "the cache of a windeye decoder is a StateCache, got DynamicCache"),
        ({"output_attentions": True, "return_dict_in_generate": True}, ValueError, "keeps neither attention maps nor"),
        ({"output_hidden_states": True, "return_dict_in_generate": True}, ValueError, "output_hidden_states=True"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(options, error, message):
    model = model_of(*HYBRID)
    ids, mask = prompts(5)
    with pytest.raises(error, match=message):
        model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False, **options)
