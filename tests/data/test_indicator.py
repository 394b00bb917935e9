"""The indicator: exactly the chosen turns are marked, and it is one token of the tokenizer and one row of the model."""

import pytest
import torch

from windeye.data.text import add_indicator, mark, train_bpe

TALK = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": "What does it say"},
    {"role": "assistant", "content": "Much"},
    {"role": "user", "content": "Really?\n"},
]


def contents(messages):
    return [message["content"] for message in messages]


def test_exactly_the_chosen_turns_are_marked():
    assert contents(mark(TALK, {0})) == ["Be brief", "What does it say.[IND]", "Much", "Really?\n"]
    assert contents(mark(TALK, {1})) == ["Be brief", "What does it say", "Much", "Really?[IND]"]
    assert mark(TALK, ()) == TALK


def test_marking_twice_is_marking_once():
    assert mark(mark(TALK, {0, 1}), {0, 1}) == mark(TALK, {0, 1})


@pytest.mark.parametrize("end", [".", "!", "?", ")", "”"])
def test_punctuation_at_the_end_is_kept_as_it_is(end):
    assert mark([{"role": "user", "content": f"So{end}"}], {0})[0]["content"] == f"So{end}[IND]"


def test_turns_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"turns must be in 0 \.\. 1 for 2 user messages, got \[-1, 2\]"):
        mark(TALK, {0, 2, -1})


@pytest.fixture
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=train_bpe("the cat and the hat " * 20, 280))


def test_it_is_one_new_token_and_one_new_row(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    before = len(tokenizer)
    config = LlamaConfig(
        vocab_size=before, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    rows = model.get_input_embeddings().weight.detach().clone()
    token = add_indicator(tokenizer, model)
    assert (token, len(tokenizer), model.get_input_embeddings().num_embeddings) == (before, before + 1, before + 1)
    assert tokenizer.encode("cat.[IND]", add_special_tokens=False)[-1] == token
    assert torch.equal(model.get_input_embeddings().weight[:before], rows)
    assert add_indicator(tokenizer, model) == token
    assert (len(tokenizer), model.get_input_embeddings().num_embeddings) == (before + 1, before + 1)

    ids = torch.tensor([tokenizer.encode("the cat[IND] the hat", add_special_tokens=False)])
    model(ids, labels=ids).loss.backward()
    assert model.get_input_embeddings().weight.grad[token].abs().sum() > 0


def test_rows_beyond_the_vocabulary_are_used(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    size = len(tokenizer) + 50
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    assert add_indicator(tokenizer, model) == size - 50
    assert model.get_input_embeddings().num_embeddings == size
