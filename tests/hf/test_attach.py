"""Attached models of transformers compute what they did; watching and steering them equals eager attention by hand."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import windeye
from hf.families import DECODERS, ENCODERS, build, prompts
from windeye.hf import attach
from windeye.patterns import Causal, Sinks, Sliding
from windeye.sites import Add, Hide, KeyBias, Keys, Patch, Scale, SetAttention, Where, record, steer, watch

NO_SDPA = {"gemma2", "gpt_oss"}
"""Families whose logits are capped or have sinks, which transformers computes in its eager functions only."""


def native(family):
    return "eager" if family in NO_SDPA else "sdpa"


def maps_of(family, inputs):
    """The maps that transformers' eager attention gives: per layer [batch, heads, queries, keys]."""
    with torch.no_grad():
        model = build(family, "eager")
        if family == "gpt2":
            inputs = inputs | {"position_ids": inputs["attention_mask"].cumsum(dim=1).sub(1).clamp(min=0)}
        return model(**inputs, output_attentions=True).attentions


def logits(model, inputs):
    if model.config.model_type == "gpt2":  # as generate does it; without, padding would count as positions
        positions = inputs["attention_mask"].cumsum(dim=1).sub(1).clamp(min=0)
        inputs = inputs | {"position_ids": positions}
    with torch.no_grad():
        out = model(**inputs)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def close(a, b):
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=3e-5)


def real_rows(stat, mask):
    """Rows of true tokens: what padding sees is nobody's business."""
    return stat[:, mask.bool()]


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_statistics_equal_those_of_eager_maps(family, left):
    inputs = prompts(9, 6, left=left)
    maps = maps_of(family, inputs)
    model = build(family, native(family))
    plain = logits(model, inputs)
    handle = attach(model)
    assert torch.equal(logits(model, inputs), plain)
    stats = {"H": "entropy", "p": "participation", "far": "mean_distance", "got": "column_sum", "sink": "sink_mass"}
    rows = inputs["attention_mask"].bool()
    with handle.watch(stats, rows=rows) as seen:
        watched = logits(model, inputs)
    close(watched, plain)
    handle.undo()
    assert torch.equal(logits(model, inputs), plain)
    maps = torch.stack([m.double() for m in maps])
    maps = torch.where(rows[:, None, :, None], maps, 0.0)
    tokens = rows.shape[1]
    back = (torch.arange(tokens)[:, None] - torch.arange(tokens)).abs()
    first = rows & (rows.long().cumsum(dim=1) == 1)
    close(real_rows(seen["H"], rows), real_rows(torch.special.entr(maps).sum(-1).transpose(2, 3), rows))
    close(real_rows(seen["p"], rows), real_rows(maps.square().sum(-1).transpose(2, 3), rows))
    close(real_rows(seen["far"], rows), real_rows((maps * back).sum(-1).transpose(2, 3), rows))
    close(real_rows(seen["sink"], rows), real_rows((maps * first[:, None, None]).sum(-1).transpose(2, 3), rows))
    close(seen["got"], maps.sum(3).transpose(2, 3))


@pytest.mark.parametrize("how", ["greedy", "beams", "static", "sampling"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral", "gpt2", "phi", "llava"])
def test_generation_is_the_same_and_watched_as_one_pass(family, how):
    options = {
        "greedy": {}, "beams": {"num_beams": 3}, "static": {"cache_implementation": "static"},
        "sampling": {"do_sample": True, "temperature": 0.7},
    }[how]  # fmt: skip
    inputs = prompts(9, 6)
    model = build(family)

    def generate():
        torch.manual_seed(0)
        settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0} | options
        return model.generate(**inputs, **settings)

    plain = generate()
    with attach(model) as handle:
        assert torch.equal(generate(), plain)
        with handle.watch(["entropy", "column_sum"]) as seen:
            assert torch.equal(generate(), plain)
        if how != "beams":
            mask = torch.cat((inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)), dim=1)
            with handle.watch(["entropy", "column_sum"], rows=mask.bool()) as whole:
                logits(model, {"input_ids": plain[:, :-1], "attention_mask": mask})
            close(real_rows(seen["entropy"], mask), real_rows(whole["entropy"], mask))
    assert torch.equal(generate(), plain)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt2", "gpt_oss", "bert", "albert", "llava"])
def test_edits_equal_eager_attention_by_hand(family):
    """The edited row is computed from the maps, and the rest of the model is left to run from there."""
    inputs = prompts(9, 9)
    model = build(family, native(family))
    with attach(model) as handle:
        layer = len(handle.parts.layers) - 1
        with handle.record(["q", "k", "v", "z"]) as plain:
            logits(model, inputs)
        where = Where(layers=(layer,), heads=(1, 2), rows=Keys.at(7))
        with handle.steer([KeyBias(1.5, Keys.at(0, 3), where=where)]), handle.record(["z"]) as edited:
            logits(model, inputs)
        with handle.steer([SetAttention({2: 0.5, 4: 0.5}, where=where)]), handle.record(["z"]) as chosen:
            logits(model, inputs)
    maps = maps_of(family, inputs)[layer].double()
    value = plain["v", layer].double().repeat_interleave(4 // plain["v", layer].shape[2], dim=2)
    factor = torch.ones(9, dtype=torch.float64)
    factor[[0, 3]] = torch.tensor(1.5).double().exp()
    row = maps[:, [1, 2], 7] * factor
    missing = 1 - maps[:, [1, 2], 7].sum(-1, keepdim=True)  # what a learned sink takes
    row = row / (row.sum(-1, keepdim=True) + missing)
    truth = plain["z", layer].double()
    truth[:, 7, [1, 2]] = torch.einsum("bhk,bkhd->bhd", row, value[:, :, [1, 2]])
    close(edited["z", layer], truth)
    if family != "gpt_oss":
        truth[:, 7, [1, 2]] = (value[:, 2, [1, 2]] + value[:, 4, [1, 2]]) / 2
        close(chosen["z", layer], truth)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt2", "gpt_oss", "bert"])
def test_a_bias_of_keys_over_all_rows_equals_eager_attention_by_hand(family):
    """Where it runs as one more channel, and where caps or sinks forbid that."""
    inputs = prompts(9, 9)
    model = build(family, native(family))
    with attach(model) as handle:
        layer = len(handle.parts.layers) - 1
        edit = KeyBias(1.5, Keys.at(0, 3), where=Where(layers=(layer,)))
        with handle.steer([edit]), handle.record(["v", "z"]) as edited:
            logits(model, inputs)
    maps = maps_of(family, inputs)[layer].double()
    value = edited["v", layer].double()
    value = value.repeat_interleave(4 // value.shape[2], dim=2)
    factor = torch.ones(9, dtype=torch.float64)
    factor[[0, 3]] = torch.tensor(1.5).double().exp()
    weights = maps * factor
    weights = weights / (weights.sum(-1, keepdim=True) + 1 - maps.sum(-1, keepdim=True))
    close(edited["z", layer], torch.einsum("bhqk,bkhd->bqhd", weights, value))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mistral"])
def test_steered_generation_equals_steered_passes(family):
    """Greedy tokens, chosen one by one from full passes without a cache, are those of generate."""
    inputs = prompts(9, 6)
    model = build(family)
    edits = [
        KeyBias(-1.0, Keys.span(4, 8, outside=True)),
        Scale("z", 0.2, where=Where(layers=(0,), heads=(3,))),
        Add("resid_post", 0.3, where=Where(layers=(0,), rows=Keys.at(5, 10))),
    ]
    with attach(model) as handle, handle.steer(edits):
        made = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        for _ in range(4):
            step = logits(model, {"input_ids": ids, "attention_mask": mask})[:, -1]
            step[:, 2] = -torch.inf
            ids = torch.cat((ids, step.argmax(dim=-1, keepdim=True)), dim=1)
            mask = torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1)
    assert torch.equal(made, ids)


def test_edits_of_the_last_row_steer_every_new_token():
    inputs = prompts(9, 9)
    model = build("llama")
    edit = SetAttention({0: 1.0}, where=Where(rows="last"))
    with attach(model), steer(model, [edit]), watch(model, ["sink_mass"]) as seen:
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    close(seen["sink_mass"][:, :, 8:], torch.ones(2, 2, 3, 4, dtype=torch.float64))
    assert (seen["sink_mass"][:, :, 1:8] < 1).all()


SITES = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "embed", "logits"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_sites_are_where_their_names_say(family, site):
    """Patching a site with what another prompt had there carries over all that follows from it."""
    one, other = prompts(9, 9, seed=1), prompts(9, 9, seed=2)
    model = build(family, native(family))
    with attach(model) as handle:
        with handle.record([site, "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]) as recording:
            truth = logits(model, other)
        where = Where() if site in ("embed", "logits") else Where(layers=(1,))
        with handle.steer([Patch(site, recording, where=where)]), handle.record(["resid_post"]) as patched:
            out = logits(model, one)
        if site in ("resid_pre", "resid_post", "embed", "logits"):
            close(out, truth)
        elif site != "resid_mid":
            assert not torch.allclose(patched["resid_post", 1], recording["resid_post", 1])
        if family != "gemma2":
            close(recording["resid_pre"] + recording["attn_out"], recording["resid_mid"])
            close(recording["resid_mid"] + recording["mlp_out"], recording["resid_post"])


@pytest.mark.parametrize("pattern", [Sliding(4) | Sinks(2), Sliding(3), Causal()], ids=repr)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_another_pattern_shows_what_both_show(family, pattern):
    inputs = prompts(9, 6)
    model = build(family)
    plain = logits(model, inputs)
    alone = [{"input_ids": inputs["input_ids"][1:, 3:], "attention_mask": inputs["attention_mask"][1:, 3:]}]
    with attach(model, pattern) as handle:
        with handle.watch({"top": windeye.TopKeys(9), "H": "entropy"}) as seen:
            changed = logits(model, inputs)
        close(changed[1:, 3:], logits(model, alone[0]))
        made = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
        mask = torch.cat((inputs["attention_mask"], torch.ones(2, 3).long()), dim=1)
        full = logits(model, {"input_ids": made, "attention_mask": mask})
        full[..., 2] = -torch.inf
        assert torch.equal(full[:, 8:11].argmax(-1), made[:, 9:])
    shown = pattern.bind((9,)).mask()
    keys = seen["top"][-1, 0, :, 0, :, 0].long()
    for query in range(9):
        assert set(keys[query][keys[query] >= 0].tolist()) <= set(shown[query].nonzero()[:, 0].tolist())
    if isinstance(pattern, Causal):
        close(changed[0], plain[0])
    else:
        assert not torch.allclose(changed[0], plain[0])
    assert torch.equal(logits(model, inputs), plain)


def test_patterns_of_single_layers():
    inputs = prompts(9, 9)
    model = build("llama")
    with attach(model, {1: Sliding(2)}) as handle, handle.watch({"far": windeye.DistanceMass(2, 99)}) as seen:
        logits(model, inputs)
    assert seen["far", 0].max() > 0.01
    assert seen["far", 1].max() == 0


def test_training_through_an_attached_model():
    inputs = prompts(9, 9)
    model = build("llama")
    with attach(model) as handle, handle.watch(["entropy"]) as seen:
        model(**inputs)
        seen["entropy"].mean().backward()
    gradient = model.model.layers[0].self_attn.q_proj.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_what_cannot_be_attached_is_told():
    model = build("llama")
    with pytest.raises(TypeError, match="model must be a model of transformers, got Linear"):
        attach(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"pattern must be a windeye\.Pattern"):
        attach(model, "causal")
    with pytest.raises(IndexError, match="pattern names layer 7; the model has layers 0 to 1"):
        attach(model, {7: Sliding(2)})
    with pytest.raises(ValueError, match=r"has 0 kinds of attention that begin with 'decoder'.*layers.\*.self_attn"):
        attach(model, part="decoder")
    with pytest.raises(ValueError, match=r"no attention of LlamaForCausalLM can be reached.*attach"):
        watch(model, ["entropy"])
    handle = attach(model)
    with pytest.raises(ValueError, match="attached already"):
        attach(model)
    with pytest.raises(IndexError, match="names head 9; a layer has heads 0 to 3"):
        steer(model, [Scale("z", 0.0, where=Where(heads=(9,)))])
    edit = Scale("k", 0.0, where=Where(heads=(3,)))
    with (
        steer(model, [edit]),
        pytest.raises(IndexError, match="names head 3 at 'k' of layer 0, which has heads 0 to 1"),
    ):
        logits(model, prompts(5))
    handle.undo()
    handle.undo()
    with attach(build("bert")) as handle:
        recording = record(handle.model, ["attn_out"])
        with pytest.raises(ValueError, match="has no site 'attn_out' in layer 0; it has"), recording:
            pass


def test_cross_attention_is_watched_and_steered():
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    inputs = prompts(7, 5, left=False) | {"decoder_input_ids": torch.randint(4, 40, (2, 6))}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(model(**inputs, output_attentions=True).cross_attentions)
    model.set_attn_implementation("sdpa")
    plain = logits(model, inputs)
    with pytest.raises(ValueError, match=r"choose one by part: .*encoder_attn"):
        attach(model, part="model")
    with attach(model, part="model.decoder.layers.*.encoder_attn") as handle:
        with handle.watch(["entropy", "column_sum", "max_weight"]) as seen:
            close(logits(model, inputs), plain)
        with handle.steer([Hide(Keys.at(0))]), handle.watch(["sink_mass", "column_sum"]) as hidden:
            logits(model, inputs)
    close(seen["entropy"], torch.special.entr(maps).sum(-1).transpose(2, 3))
    close(seen["column_sum"], maps.sum(3).transpose(2, 3))
    assert hidden["column_sum"][:, :, 0].abs().max() == 0
