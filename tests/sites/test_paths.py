"""Path patching: equal to the published numbers, to its definition in two passes, and to what follows by hand."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import golden
from sites.decoders import HEADS, LAYERS, LAYOUTS, VOCAB, decoder, logits_of, prompts, tolerance
from windeye.data.tasks import ContrastBatch
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM, TaylorSpec
from windeye.sites import parts_of
from windeye.sites.anatomy import anatomy, run_streams
from windeye.sites.paths import Receivers, path_patching

pytest.importorskip("transformers")


def same(actual, expected, off=1e-10):
    torch.testing.assert_close(actual, expected, rtol=off, atol=off)


@pytest.fixture(scope="module")
def published():
    """The random decoder of the golden file is a GPT-2 whose norms have gain 1 and whose head is its own."""
    import transformers

    meta, numbers = golden.load("circuit-reuse", "path_patching")
    config = transformers.GPT2Config(
        vocab_size=meta["vocab"], n_positions=meta["length"], n_embd=meta["width"], n_layer=meta["layers"],
        n_head=meta["heads"], n_inner=meta["mlp"], tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).double().eval()
    weights = golden.under("weight.", numbers)
    state = model.state_dict()
    for name, tensor in state.items():
        tensor.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    state["transformer.wte.weight"].copy_(weights["E"])
    state["transformer.wpe.weight"].copy_(weights["P"])
    state["lm_head.weight"].copy_(weights["U"].T)
    for layer in range(meta["layers"]):
        here, there = f"transformer.h.{layer}.", f"blocks.{layer}."
        maps = [weights[f"{there}attn.W_{part}"].movedim(0, 1).flatten(1) for part in "QKV"]
        state[f"{here}attn.c_attn.weight"].copy_(torch.cat(maps, dim=1))
        state[f"{here}attn.c_attn.bias"].copy_(
            torch.cat([weights[f"{there}attn.b_{part}"].flatten() for part in "QKV"])
        )
        state[f"{here}attn.c_proj.weight"].copy_(weights[f"{there}attn.W_O"].flatten(0, 1))
        state[f"{here}attn.c_proj.bias"].copy_(weights[f"{there}attn.b_O"])
        state[f"{here}mlp.c_fc.weight"].copy_(weights[f"{there}W_in"])
        state[f"{here}mlp.c_proj.weight"].copy_(weights[f"{there}W_out"])
    batch = ContrastBatch(*(numbers[f"input.{name}"] for name in ("clean", "corrupt", "answers")))
    return model, batch, meta["runs"], golden.under("output.", numbers)


class TestPublished:
    def test_the_model_of_the_golden_file_gives_its_logits(self, published):
        model, batch, _, out = published
        same(logits_of(model, batch.clean)[:, -1], out["logits_clean_last"])
        same(logits_of(model, batch.corrupt)[:, -1], out["logits_corrupt_last"])

    @pytest.mark.parametrize("route", ["closed", "two-pass"])
    @pytest.mark.parametrize("number", range(4))
    def test_effects_are_the_published_ones(self, published, number, route):
        model, batch, runs, out = published
        run = runs[number]
        receivers = (
            "logits"
            if run["component"] == "z"
            else Receivers(run["component"], tuple((int(layer), head) for layer, head in run["receivers"]))
        )
        at = "end" if run["position"] == -1 else torch.full((len(batch), 1), run["position"])
        mlps = "frozen" if run["freeze_mlps"] else "free"
        found = path_patching(model, batch, mlps=mlps, receivers=receivers, places=at, route=route)
        same(found.clean, out["ld_clean"])
        same(found.corrupt, out["ld_corrupt"])
        same(found.effect, out[f"effect_{number}"], off=1e-6)


@st.composite
def receivers(draw: st.DrawFn, kv_heads: int):
    kind = draw(st.sampled_from("qkv"))
    most = HEADS if kind == "q" else kv_heads
    head = st.tuples(st.integers(0, LAYERS - 1), st.integers(0, most - 1))
    return Receivers(kind, tuple(draw(st.lists(head, min_size=1, max_size=4, unique=True))))


class TestRoutes:
    @pytest.mark.parametrize("mlps", ["free", "frozen"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_to_the_logits_no_second_pass_is_needed(self, layout, mlps):
        model, batch = decoder(layout), prompts()
        closed, reference = (path_patching(model, batch, mlps=mlps, route=r) for r in ("closed", "two-pass"))
        same(closed.patched, reference.patched, tolerance(layout))
        assert closed.effect.abs().min() > 1e-4

    @settings(max_examples=12, deadline=None)
    @given(data=st.data())
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_to_heads_the_first_pass_is_a_sum(self, layout, data):
        model, batch = decoder(layout), prompts(changed=2)
        to = data.draw(receivers(2 if "grouped" in layout else HEADS))
        chosen = {
            "mlps": data.draw(st.sampled_from(["free", "frozen"])),
            "places": data.draw(st.sampled_from(["end", "all", "s2", torch.tensor([[2, 4], [3, 5], [0, 3]])])),
            "chunk": data.draw(st.sampled_from([1, 3, 32])),
        }
        closed, reference = (
            path_patching(model, batch, receivers=to, route=r, **chosen) for r in ("closed", "two-pass")
        )
        same(closed.patched, reference.patched, tolerance(layout))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_in_single_precision_too(self, layout):
        model, batch = decoder(layout, dtype=torch.float32), prompts()
        for to in ("logits", Receivers("k", ((2, 0), (1, 1)))):
            closed, reference = (
                path_patching(model, batch, mlps="free", receivers=to, route=r) for r in ("closed", "two-pass")
            )
            same(closed.patched, reference.patched, off=1e-5)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_clean_and_corrupt_are_the_models_own_logit_differences(self, layout):
        model, batch = decoder(layout), prompts()
        found = path_patching(model, batch, mlps="free")
        rows = torch.arange(len(batch))
        for ids, difference in ((batch.clean, found.clean), (batch.corrupt, found.corrupt)):
            logits = logits_of(model, ids)[rows, batch.end].gather(1, batch.answers)
            same(difference, logits[:, 0] - logits[:, 1], tolerance(layout))


class TestMeaning:
    def test_with_mlps_frozen_a_head_moves_the_last_stream_by_what_it_writes(self):
        model, batch = decoder("gpt2"), prompts()
        found = path_patching(model, batch, mlps="frozen")
        parts, at = anatomy(model), batch.at("end")
        with torch.no_grad():
            clean, corrupt = (run_streams(parts, ids, at, batch.end) for ids in (batch.clean, batch.corrupt))
            for layer, block in enumerate(model.transformer.h):
                weight = block.attn.c_proj.weight.view(HEADS, -1, 32)
                for head in range(HEADS):
                    moved = (corrupt.z - clean.z)[layer, :, 0, head] @ weight[head]
                    logits = model.lm_head(model.transformer.ln_f(clean.final + moved)).gather(1, batch.answers)
                    same(found.patched[layer, head], logits[:, 0] - logits[:, 1])

    def test_without_norms_and_mlps_one_layers_effects_add_up_to_the_whole(self):
        torch.manual_seed(0)
        model = DecoderLM(DecoderConfig(VOCAB, 32, (AttentionSpec(HEADS),), norm="none", init_std=0.5)).double()
        found = path_patching(model, prompts(), mlps="frozen")
        assert found.effect.sum().item() == pytest.approx(1.0, abs=1e-10)

    def test_all_heads_of_one_layer_together_carry_all_that_another_token_says(self):
        """One head is all heads: its effect is 1, however norms and the MLP bend it."""
        torch.manual_seed(0)
        model = DecoderLM(DecoderConfig(VOCAB, 32, (AttentionSpec(1),), glu_dim=48, init_std=0.5)).double()
        found = path_patching(model, prompts(), mlps="free")
        same(found.patched[0, 0], found.corrupt)

    def test_what_is_the_same_in_both_runs_has_no_effect(self):
        """Places before the first changed token."""
        model, batch = decoder("llama, grouped"), prompts(changed=3)
        before = torch.tensor([[0, 1, 2]] * len(batch))
        found = path_patching(model, batch, mlps="free", receivers=Receivers("k", ((2, 0),)), places=before)
        same(found.patched, found.clean.expand_as(found.patched))

    def test_freezing_mlps_matters_exactly_where_there_are_some(self):
        for layout, matters in (("windeye", True), ("windeye, attention only", False)):
            free, frozen = (path_patching(decoder(layout), prompts(), mlps=mlps) for mlps in ("free", "frozen"))
            assert ((free.effect - frozen.effect).abs().max() > 1e-3) == matters

    def test_heads_that_cannot_reach_the_receiver_have_no_effect(self):
        found = path_patching(decoder("gpt2"), prompts(), mlps="free", receivers=Receivers("q", ((1, 2),)))
        same(found.effect[1:], torch.zeros(2, HEADS, dtype=torch.float64))
        assert found.effect[0].abs().min() > 0

    def test_prompts_of_other_lengths_do_not_touch_each_other(self):
        model, batch = decoder("llama, grouped"), prompts(batch=4)
        together = path_patching(model, batch, mlps="free", receivers=Receivers("v", ((1, 0),)), places="s2")
        for row in range(4):
            n = int(batch.end[row]) + 1
            one = batch.rows(slice(row, row + 1))
            alone = ContrastBatch(one.clean[:, :n], one.corrupt[:, :n], one.answers, places=one.places)
            found = path_patching(model, alone, mlps="free", receivers=Receivers("v", ((1, 0),)), places="s2")
            same(together.patched[..., row], found.patched[..., 0], tolerance("llama"))

    @pytest.mark.parametrize("to", ["logits", Receivers("q", ((2, 0),))])
    def test_sending_its_own_clean_output_a_head_has_no_effect(self, to):
        model, batch = decoder("gpt2"), prompts()
        parts = anatomy(model)
        with torch.no_grad():
            own = run_streams(parts, batch.clean, batch.at("end"), batch.end).z
        found = path_patching(model, batch, mlps="free", receivers=to, by=own)
        same(found.patched, found.clean.expand_as(found.patched))

    @pytest.mark.parametrize("route", ["closed", "two-pass"])
    def test_some_senders_have_the_effects_that_they_have_among_all(self, route):
        model, batch = decoder("windeye, grouped"), prompts()
        for to in ("logits", Receivers("v", ((2, 0),))):
            every = path_patching(model, batch, mlps="free", receivers=to)
            some = path_patching(model, batch, mlps="free", receivers=to, senders=[(0, 3), (1, 1)], route=route)
            for sender in ((0, 3), (1, 1)):
                same(some.patched[sender], every.patched[sender])
            same(some.patched[0, 0], some.clean)

    def test_the_largest_come_first(self):
        found = path_patching(decoder("gpt2"), prompts(), mlps="free")
        top = found.top(5)
        sizes = [abs(found.effect[layer, head].item()) for layer, head in top]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == found.effect.abs().max()


class TestModels:
    def test_the_model_is_left_as_it_was(self):
        model, batch = decoder("windeye"), prompts()
        model.train()
        before = logits_of(model, batch.clean)
        path_patching(model, batch, mlps="free", receivers=Receivers("q", ((2, 1),)))
        assert model.training
        assert torch.equal(logits_of(model, batch.clean), before)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_a_stream_that_is_scaled_is_refused_and_named(self):
        torch.manual_seed(0)
        config = DecoderConfig(VOCAB, 32, (AttentionSpec(HEADS),) * 2, glu_dim=48, residual_scale=True, init_std=0.5)
        model = DecoderLM(config)
        nn.init.constant_(model.blocks[1].mixer_residual, 0.5)
        with pytest.raises(ValueError, match=r"layer 1: the stream and what its heads write do not add up .* off by"):
            path_patching(model, prompts(), mlps="free")
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_blocks_are_the_layers_that_sessions_see(self, layout):
        from windeye.hf import attach

        model = decoder(layout)
        with nullcontext() if layout.startswith("windeye") else attach(model):
            assert tuple(block.layer for block in anatomy(model).blocks) == parts_of(model).layers

    def test_models_without_softmax_heads_are_refused(self):
        model = DecoderLM(DecoderConfig(VOCAB, 32, (TaylorSpec(),)))
        with pytest.raises(ValueError, match="DecoderLM has no attention between known maps: into heads by qkv_proj"):
            anatomy(model)

    def test_one_layer_without_softmax_heads_is_refused(self):
        model = DecoderLM(DecoderConfig(VOCAB, 32, (AttentionSpec(HEADS), TaylorSpec()), glu_dim=48, init_std=0.5))
        with pytest.raises(ValueError, match="layer 0: the stream and what its MLP write do not add up"):
            path_patching(model, prompts(), mlps="free")


class TestBadInput:
    @pytest.mark.parametrize(
        ("changed", "error", "message"),
        [
            ({"mlps": "some"}, ValueError, 'mlps must be "free" or "frozen", got \'some\''),
            ({"route": "fast"}, ValueError, 'route must be "closed" or "two-pass", got \'fast\''),
            ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
            ({"senders": [(0, 4)]}, IndexError, "sender layer 0, head 4: layers are 0 to 2, heads 0 to 3"),
            ({"by": torch.zeros(3, 3, 4, 8)}, ValueError, r"by must be \[layers, batch, .*\], got \(3, 1, 4, 8\)"),
            ({"places": "all"}, ValueError, 'where logits receive, places must be "end"'),
            ({"receivers": Receivers("q", ())}, ValueError, "receivers must name at least one head"),
            ({"receivers": Receivers("z", ((0, 0),))}, ValueError, 'input must be "q", "k" or "v", got \'z\''),
            ({"receivers": Receivers("q", ((3, 1),))}, IndexError, "receiver layer 3, head 1: layers are 0 to 2"),
            ({"receivers": Receivers("q", ((1, 4),))}, IndexError, "receiver layer 1, head 4: q heads are 0 to 3"),
            ({"receivers": Receivers("k", ((1, 2),))}, IndexError, "receiver layer 1, head 2: k heads are 0 to 1"),
            (
                {"receivers": Receivers("k", ((1, 0),)), "places": torch.tensor([[7]] * 3)},
                IndexError,
                "place 7 of prompt 0: its tokens are 0 to 6",
            ),
        ],
    )
    def test_errors_say_what_would_be_valid(self, changed, error, message):
        with pytest.raises(error, match=message):
            path_patching(decoder("llama, grouped"), prompts(), **{"mlps": "free"} | changed)

    def test_two_runs_with_the_same_answer_leave_nothing_to_share_out(self):
        batch = prompts()
        with pytest.raises(ValueError, match="the same mean logit difference"):
            path_patching(decoder("gpt2"), replace(batch, corrupt=batch.clean), mlps="free")
