"""Logit lens, direct attribution, and patching by all routes: equal to the model's own numbers and to single runs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from sites.decoders import HEADS, LAYERS, LAYOUTS, decoder, logits_of, prompts, tolerance
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.sites import SetAttention, Where, steer
from windeye.sites.anatomy import anatomy
from windeye.sites.lens import direct_attribution, logit_lens
from windeye.sites.patching import activation_patching, attribution_patching, patched_logits, uniform_rows
from windeye.sites.paths import Receivers, path_patching

pytest.importorskip("transformers")


def same(actual, expected, off=1e-9):
    torch.testing.assert_close(actual, expected, rtol=off, atol=off)


def read(batch, logits):
    """Logit differences at the prompts' ends."""
    found = logits[torch.arange(len(batch)), batch.end].gather(1, batch.answers)
    return found[:, 0] - found[:, 1]


def differences(model, batch, ids):
    return read(batch, logits_of(model, ids))


def outputs_of_heads(model, ids):
    """z of every layer, [batch, n, heads, head_dim], by hooks of its own."""
    seen, blocks = [], anatomy(model).blocks
    handles = [
        b.out.register_forward_pre_hook(lambda _, args: seen.append(args[0].unflatten(-1, (HEADS, -1)))) for b in blocks
    ]
    logits_of(model, ids)
    for handle in handles:
        handle.remove()
    return seen


def with_head_replaced(model, ids, layer, head, value):
    """Logits with one head's output replaced everywhere that ``value`` is not NaN."""

    def replace(_, args):
        z = args[0].unflatten(-1, (HEADS, -1)).clone()
        z[:, :, head] = torch.where(value.isnan(), z[:, :, head], value)
        return (z.flatten(-2),)

    handle = anatomy(model).blocks[layer].out.register_forward_pre_hook(replace)
    try:
        return logits_of(model, ids)
    finally:
        handle.remove()


class TestLens:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_at_the_last_depth_it_is_the_model(self, layout):
        model, ids = decoder(layout), prompts().clean
        seen = logit_lens(model, ids, torch.arange(7).expand(3, -1))
        assert seen.shape[:3] == (LAYERS + 1, 3, 7)
        same(seen[-1], logits_of(model, ids), tolerance(layout))

    def test_before_the_first_block_it_reads_the_embedding(self):
        model, ids = decoder("windeye"), prompts().clean
        with torch.no_grad():
            expected = model.logits(model.norm(model.embedding(ids[:, 2:4])))
        same(logit_lens(model, ids, torch.tensor([[2, 3]] * 3))[0], expected)


class TestAttribution:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_terms_add_up_to_the_logit_difference(self, layout):
        model, batch = decoder(layout), prompts()
        found = direct_attribution(model, batch.clean, batch.answers, batch.end)
        same(found.total, differences(model, batch, batch.clean), tolerance(layout))
        assert found.heads.shape == (LAYERS, HEADS, len(batch))

    @pytest.mark.parametrize("norm", ["rms", "simple_rms", "layer", "none"])
    def test_whatever_the_norm(self, norm):
        torch.manual_seed(0)
        config = DecoderConfig(31, 32, (AttentionSpec(HEADS),) * 2, glu_dim=48, norm=norm, init_std=0.3)
        model, batch = DecoderLM(config).double(), prompts()
        found = direct_attribution(model, batch.clean, batch.answers, batch.end)
        same(found.total, differences(model, batch, batch.clean))

    def test_without_a_norm_a_frozen_path_is_the_difference_of_two_attributions(self):
        torch.manual_seed(0)
        config = DecoderConfig(31, 32, (AttentionSpec(HEADS),) * 2, glu_dim=48, norm="none", init_std=0.3)
        model, batch = DecoderLM(config).double(), prompts()
        clean, corrupt = (
            direct_attribution(model, ids, batch.answers, batch.end) for ids in (batch.clean, batch.corrupt)
        )
        paths = path_patching(model, batch, mlps="frozen")
        same(paths.patched - paths.clean, corrupt.heads - clean.heads)

    def test_a_norm_that_is_not_linear_is_refused(self):
        model, batch = decoder("windeye"), prompts()
        model.norm = torch.nn.Sequential(model.norm, torch.nn.Tanh())
        with pytest.raises(ValueError, match="the last norm, Sequential, is not linear with its scale held"):
            direct_attribution(model, batch.clean, batch.answers, batch.end)


class TestActivationPatching:
    @pytest.mark.parametrize("by", ["corrupt", "zero", "mean"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_it_is_one_run_per_head(self, layout, by):
        model, batch = decoder(layout), prompts()
        found = activation_patching(model, batch, by=by, places="s2", chunk=3)
        place = int(batch.places["s2"][0])
        for layer in range(LAYERS):
            for head in range(HEADS):
                value = {
                    "corrupt": outputs_of_heads(model, batch.corrupt)[layer][:, :, head],
                    "mean": outputs_of_heads(model, batch.clean)[layer][:, :, head].mean(0, keepdim=True),
                }.get(by, torch.zeros(()).double())
                value = value.expand(3, 7, 8).clone()
                value[:, [p for p in range(7) if p != place]] = torch.nan
                expected = read(batch, with_head_replaced(model, batch.clean, layer, head, value))
                same(found.patched[layer, head], expected, tolerance(layout))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_in_the_last_layer_it_is_the_path_to_the_logits(self, layout):
        """No head lies behind that could be held."""
        model, batch = decoder(layout), prompts()
        by_all, by_one = activation_patching(model, batch), path_patching(model, batch, mlps="free")
        same(by_all.patched[-1], by_one.patched[-1], tolerance(layout))
        assert (by_all.patched[0] - by_one.patched[0]).abs().max() > 1e-3

    def test_given_numbers_are_put_in_place(self):
        model, batch = decoder("llama, grouped"), prompts()
        zero = activation_patching(model, batch, by="zero")
        same(activation_patching(model, batch, by=torch.zeros(LAYERS, 3, 1, HEADS, 8).double()).patched, zero.patched)

    def test_patching_everything_that_a_head_receives_is_patching_the_head(self):
        """Queries of one head in the last layer, all senders below patched at once: one path that stands for all."""
        torch.manual_seed(0)
        model = DecoderLM(DecoderConfig(31, 32, (AttentionSpec(1), AttentionSpec(1)), init_std=0.5)).double()
        batch = prompts()
        found = path_patching(model, batch, mlps="free", receivers=Receivers("q", ((1, 0),)))
        assert found.effect[0, 0].abs() > 1e-3
        same(found.effect[1], torch.zeros(1).double())

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match='by must be "corrupt", "zero" or "mean", got \'noise\''):
            activation_patching(decoder("gpt2"), prompts(), by="noise")
        with pytest.raises(ValueError, match=r"by must be of shape \(3, 3, 1, 4, 8\) here, got \(3, 3, 4, 8\)"):
            activation_patching(decoder("gpt2"), prompts(), by=torch.zeros(3, 3, 4, 8))
        with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
            activation_patching(decoder("gpt2"), prompts(), chunk=0)


class TestRows:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_mean_of_values_is_a_row_that_is_even_over_their_keys(self, layout):
        """Through the edit of the row itself; edits at the last token leave the tokens before it as they were."""
        model, batch = decoder(layout, dtype=torch.float32), prompts()
        batch = replace(batch, end=torch.full((3,), 6))
        heads, keys = [(0, 1), (1, 0), (1, 3), (2, 2)], torch.tensor([[1, 4]] * 3)
        (patched,) = patched_logits(model, batch, [heads], uniform_rows(model, batch.clean, keys))
        plain = logits_of(model, batch.clean)
        with reachable(model):
            where = Where(heads={layer: tuple(h for at, h in heads if at == layer) for layer in range(3)}, rows="last")
            with steer(model, [SetAttention({1: 0.5, 4: 0.5}, where=where)]):
                edited = logits_of(model, batch.clean)
        same(patched, edited[:, -1], 1e-4)
        same(edited[:, :-1], plain[:, :-1], 1e-4)
        assert (edited[:, -1] - plain[:, -1]).abs().max() > 1e-2

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_one_head_is_activation_patching_and_no_head_the_clean_run(self, layout):
        model, batch = decoder(layout), prompts()
        z = uniform_rows(model, batch.clean, torch.tensor([[0, 2, 3]] * 3))
        one, nothing = patched_logits(model, batch, [[(1, 2)], []], z)
        found = one.gather(1, batch.answers)
        same(found[:, 0] - found[:, 1], activation_patching(model, batch, by=z).patched[1, 2], tolerance(layout))
        same(nothing, logits_of(model, batch.clean)[torch.arange(3), batch.end], tolerance(layout))

    def test_heads_that_are_not_there_are_named(self):
        with pytest.raises(IndexError, match="layer 1, head 4: layers are 0 to 2, heads 0 to 3"):
            patched_logits(decoder("gpt2"), prompts(), [[(1, 4)]], torch.zeros(3, 3, 1, 4, 8))


@contextmanager
def reachable(model):
    """Models of transformers are attached for as long as they are steered."""
    if hasattr(model, "hidden"):
        yield
        return
    from windeye.hf import attach

    with attach(model):
        yield


class TestAttributionPatching:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_it_is_the_slope_of_activation_patching(self, layout):
        """Mixed a thousandth of the way to the corrupted output, and as far the other way."""
        model, batch = decoder(layout), prompts()
        found = attribution_patching(model, batch, places="s2")
        clean, corrupt = (outputs_of_heads(model, ids) for ids in (batch.clean, batch.corrupt))
        place, step = int(batch.places["s2"][0]), 1e-3
        for layer, head in ((0, 1), (1, 2), (2, 3)):
            sides = []
            for share in (step, -step):
                value = torch.full((3, 7, 8), torch.nan).double()
                value[:, place] = torch.lerp(clean[layer][:, place, head], corrupt[layer][:, place, head], share)
                sides.append(read(batch, with_head_replaced(model, batch.clean, layer, head, value)))
            slope = (sides[0] - sides[1]) / (2 * step)
            same(found.patched[layer, head] - found.clean, slope, 1e-3)

    def test_without_anything_that_bends_it_is_exact(self):
        torch.manual_seed(0)
        model = DecoderLM(DecoderConfig(31, 32, (AttentionSpec(HEADS),), norm="none", init_std=0.5)).double()
        batch = prompts()
        same(attribution_patching(model, batch).patched, activation_patching(model, batch).patched)
