"""A decoder as a model of transformers: the same numbers, files, losses; imports only when asked for."""

import json
import re
import subprocess
import sys

import beartype
import pytest
import torch
from jaxtyping import jaxtyped

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from hf.small import VOCAB, model_of, of_kind, prompts
from nn.mixer_kit import same
from windeye.hf import StateCache, WindeyeConfig, WindeyeForCausalLM
from windeye.models import MIXERS, AttentionSpec, DecoderConfig, LightningSpec

SPECS = (LightningSpec(lrpe=True), AttentionSpec(window=3))


def test_logits_are_those_of_the_decoder():
    model = model_of(*SPECS)
    ids, mask = prompts(7, 3)
    expected, state = model.decoder(ids, padding=mask == 0, return_state=True)
    output = model(ids, attention_mask=mask)
    same(output.logits, expected)
    same(model(ids, attention_mask=mask, logits_to_keep=1).logits, expected[:, -1:])
    same(model(ids, attention_mask=mask, logits_to_keep=torch.tensor([2, 5])).logits, expected[:, [2, 5]])
    same(model(ids, attention_mask=mask, use_cache=False, return_dict=False)[0], expected)
    new = torch.tensor([[1, 2], [3, 4]])
    same(model(new, cache=StateCache(state)).logits, model.decoder(new, state=state))
    same(model(new, past_key_values=StateCache(state)).logits, model.decoder(new, state=state))


def test_shapes_are_those_of_the_signature():
    model = model_of(*SPECS)
    checked = jaxtyped(typechecker=beartype.beartype)(model.forward)
    ids, mask = prompts(7, 3)
    cache = checked(ids, mask, labels=ids)[2]
    assert checked(ids, torch.cat((mask, mask), dim=1), cache=cache, logits_to_keep=2).logits.shape == (2, 2, VOCAB)


def test_losses_are_of_the_next_token_and_train_every_weight():
    model = model_of(*SPECS).train()
    ids, _ = prompts(7, 7)
    labels = ids.clone()
    labels[0, :4] = -100
    output = model(ids, labels=labels)
    logits = model.decoder(ids)[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-5, atol=1e-5)  # taken in float32
    torch.testing.assert_close(model(ids, labels=labels, num_items_in_batch=18).loss, output.loss / 2)
    assert output["loss"] is output[0] is output.loss
    output.loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(isinstance(part, StateCache) for part in output.to_tuple())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_their_trainer_trains_it(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = model_of(*SPECS).float().train()
    text = torch.arange(8).expand(8, -1)
    arguments = TrainingArguments(
        tmp_path, max_steps=12, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=3e-2,
        use_cpu=True, report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    before = model(text, labels=text).loss.item()
    Trainer(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in text]).train()
    assert model(text, labels=text).loss.item() < before / 2
    again = WindeyeForCausalLM.from_pretrained(tmp_path / "checkpoint-12")
    same(again(text).logits, model.eval()(text).logits)


@pytest.mark.parametrize("kind", list(MIXERS))
def test_files_give_back_the_model(kind, tmp_path):
    model = of_kind(kind)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "windeye"
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(again) is WindeyeForCausalLM
    assert again.decoder.config == model.decoder.config
    assert AutoConfig.from_pretrained(tmp_path).decoder_config() == model.decoder.config
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    ids, mask = prompts(7, 3)
    same(again(ids, attention_mask=mask).logits, model(ids, attention_mask=mask).logits)
    assert WindeyeForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)(ids).logits.dtype == torch.bfloat16


def test_weights_that_do_not_fit_are_refused(tmp_path):
    model_of(*SPECS).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["junk"] = weights.pop("decoder.norm.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: \['decoder.norm.weight'\]; unexpected: \['junk'\]"):
        WindeyeForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_can_grow(tied, tmp_path):
    model = model_of(*SPECS, tied_head=tied)
    ids, _ = prompts(7)
    before = model(ids).logits
    model.resize_token_embeddings(VOCAB + 5)
    same(model(ids).logits[..., :VOCAB], before)
    assert model.config.vocab_size == model.decoder.config.vocab_size == VOCAB + 5
    model.save_pretrained(tmp_path)
    assert WindeyeForCausalLM.from_pretrained(tmp_path)(ids).logits.shape == (1, 7, VOCAB + 5)


def test_a_model_around_a_decoder_shares_its_weights():
    model = model_of(*SPECS)
    again = WindeyeForCausalLM.from_decoder(model.decoder, eos_token_id=5)
    assert again.decoder is model.decoder
    assert again.generation_config.eos_token_id == 5
    assert not again.training
    assert not any(p.is_meta for p in again.parameters())


MODEL = model_of(*SPECS)
IDS, MASK = prompts(4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MODEL(IDS, cache=StateCache(), past_key_values=StateCache()), ValueError, "two names of one thing"),
        (lambda: MODEL(IDS, cache=((0,),)), TypeError, "is a StateCache, got tuple"),
        (lambda: MODEL(IDS, attention_mask=MASK[:, 1:]), ValueError,
         r"attention_mask must be [batch 2, columns 4], got shape (2, 3)"),
        (lambda: MODEL(IDS[:, :1], attention_mask=MASK[:, :2], cache=MODEL(IDS)[-1]), ValueError,
         r"attention_mask must be [batch 2, columns 1 or 5], got shape (2, 2)"),
        (lambda: MODEL(IDS[:1], cache=MODEL(IDS)[-1]), ValueError, "state is of 2 sequences but x has 1"),
        (lambda: MODEL(IDS, output_attentions=True), ValueError, "output_attentions=True: a windeye decoder keeps"),
        (lambda: MODEL(IDS, inputs_embeds=torch.zeros(1)), TypeError, "a windeye decoder takes no inputs_embeds"),
        (lambda: WindeyeForCausalLM(WindeyeConfig()), ValueError, "WindeyeConfig has no architecture"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_configuration_is_plain_data():
    config = WindeyeConfig(DecoderConfig(VOCAB, 16, SPECS, tied_head=False), eos_token_id=3)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (VOCAB, 16, 2)
    assert config.tie_word_embeddings is False
    plain = json.loads(config.to_json_string())
    assert WindeyeConfig.from_dict(plain).to_dict() == config.to_dict()


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_windeye_leaves_transformers_alone():
    done = python("import windeye, windeye.models, sys; print('transformers' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_without_transformers_the_extra_is_named():
    done = python("import sys; sys.modules['transformers'] = None; import windeye; windeye.hf")
    assert "ImportError: windeye.hf needs transformers: pip install 'windeye[hf]'" in done.stderr
