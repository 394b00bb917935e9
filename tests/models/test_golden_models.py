"""Whole models against the official code: logits, loss, gradients of every weight, states, cached decoding."""

import pytest
import torch

from golden import load, same
from models.official import BASED, DOGE, TNL, based_of, decoded, doge_of, gradients, loss, released_names, tnl_of

TNL_CASES = pytest.mark.parametrize("case", ["model_paper_rule", "model_inverted_lrpe_rule"])


@TNL_CASES
def test_transnormerllm_with_all_gradients(case):
    meta, numbers = load("lightning-attention", case)
    model = tnl_of(meta, numbers)
    logits = model(numbers["input.ids"])
    same(logits, numbers["output.logits"])
    value = loss(logits, numbers["input.targets"])
    same(value, numbers["output.loss"])
    found = gradients(model, value)
    official = released_names({k.removeprefix("grad_weight."): v for k, v in numbers.items() if "grad_weight" in k})
    for ours, gradient in found.items():
        names = TNL.official(ours)
        for name, part in zip(names, gradient.chunk(len(names)), strict=True):
            same(part, official.pop(name))
    assert set(official) <= {"lm_head.weight"}


@TNL_CASES
def test_transnormerllm_decodes_from_the_official_states(case):
    meta, numbers = load("lightning-attention", case)
    model, ids, prefill = tnl_of(meta, numbers), numbers["input.ids"], meta["config"]["prefill"]
    logits, state = model(ids[:, :prefill], return_state=True)
    outs = [logits[:, -1]]
    for layer, own in enumerate(state.layers):
        same(own.matrix, numbers[f"output.state_after_prefill_layer{layer}"])
    for token in ids[:, prefill:].split(1, dim=1):
        logits, state = model(token, state=state, return_state=True)
        outs.append(logits[:, 0])
    same(torch.stack(outs, dim=1), numbers["output.decode_logits"])
    for layer, own in enumerate(state.layers):
        same(own.matrix, numbers[f"output.state_final_layer{layer}"])


def test_based_with_its_loss_and_the_gradient_of_the_embedding():
    meta, numbers = load("based", "tiny_based_model")
    model, ids = based_of(meta, numbers), numbers["input.ids"]
    hidden, _ = model.hidden(ids)
    same(hidden, numbers["output.final_hidden"])
    logits = model(ids)
    same(logits, numbers["output.logits"])
    value = loss(logits[:, :-1], ids[:, 1:])
    same(value, numbers["output.loss"])
    same(
        gradients(model, value)["embedding.weight"],
        numbers["grad_weight.transformer.embeddings.word_embeddings.weight"],
    )


def test_based_decodes_what_it_computes_in_one_pass():
    """The official code's cached decoding is wrong in some of its modes; the one-pass numbers are the truth."""
    meta, numbers = load("based", "tiny_based_model")
    model, ids = based_of(meta, numbers), numbers["input.ids"]
    for prefill in (1, 4, 16):
        same(decoded(model, ids, prefill), numbers["output.logits"])


def test_doge_with_all_gradients():
    meta, numbers = load("dma", "doge_model")
    model, ids = doge_of(meta, numbers), numbers["input.ids"]
    logits = model(ids)
    same(logits, numbers["output.logits"])
    value = loss(logits[:, :-1], ids[:, 1:])
    same(value, numbers["output.loss"])
    official = {k.removeprefix("grad_weight."): v for k, v in numbers.items() if "grad_weight" in k}
    for ours, gradient in gradients(model, value).items():
        names = DOGE.official(ours)
        for name, part in zip(names, gradient.chunk(len(names)), strict=True):
            same(part, official.pop(name))
    assert not official


def test_doge_decodes_what_it_computes_in_one_pass():
    meta, numbers = load("dma", "doge_model")
    model, ids = doge_of(meta, numbers), numbers["input.ids"]
    for prefill in (1, 6, 7, 8, 13):  # below, at and above the 7 keys that are kept
        same(decoded(model, ids, prefill), numbers["output.logits"])


def test_exported_weights_are_the_official_ones_bit_by_bit():
    meta, numbers = load("based", "tiny_based_model")
    official = {k.removeprefix("weight."): v for k, v in numbers.items() if k.startswith("weight.")}
    exported = BASED.export(based_of(meta, numbers))
    assert exported.keys() == official.keys()
    assert all(torch.equal(exported[name], official[name]) for name in official)
