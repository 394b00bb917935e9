"""The decoder: the mixers' contract for whole models, published sizes, construction."""

import math

import pytest
import torch

from nn import mixer_kit as kit
from windeye.models import (
    AttentionSpec,
    ConvolutionSpec,
    DecoderConfig,
    DecoderLM,
    DynamicMaskSpec,
    LightningSpec,
    TaylorSpec,
    based,
    create,
    tnl,
    transformer,
)

VOCAB = 23
MODELS = {
    "tnl": lambda: tnl(3, 16, 2, 24, vocab_size=VOCAB),
    "based": lambda: based(4, 16, 2, (1,), (2,), feature_dim=4, window=4, vocab_size=VOCAB),
    "transformer": lambda: transformer(2, 16, 4, vocab_size=VOCAB, kv_heads=2),
    "doge": lambda: DecoderLM(
        DecoderConfig(
            VOCAB, 16, (DynamicMaskSpec(keep=5, kv_heads=2, a_std=1.0),) * 2, glu_dim=24, residual_scale=True
        )
    ),
    "all": lambda: DecoderLM(
        DecoderConfig(
            VOCAB, 16,
            (LightningSpec(lrpe=True), TaylorSpec(feature_dim=3), AttentionSpec(window=3), ConvolutionSpec()),
            glu_dim=None, norm="layer", tied_head=False,
        )
    ),
}  # fmt: skip
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def tokens(n=13):
    return torch.randint(VOCAB, (2, 3, n)).unbind(0)


def wide(make):
    """In float64, with weights large enough that every layer matters."""
    model = make().double()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@every_model
def test_the_contract_of_mixers_holds_for_the_whole_model(make, tmp_path):
    model = wide(make)
    x, other = tokens()
    kit.assert_causal(model, x, other)
    kit.assert_split_invariant(model, x)
    kit.assert_steps_are_the_whole(model, x, prefill=5)
    kit.assert_padding_invariant(model, x, other)
    kit.assert_lengths_are_padding_on_the_right(model, x, other)
    kit.assert_packed_documents_are_alone(model, x, other, list(model.parameters()))
    kit.assert_rows_are_independent(model, x, other)
    kit.assert_state_survives_files(model, x, other, tmp_path / "state.safetensors")
    kit.assert_bytes_are_as_promised(model, x, model.state_bytes)
    kit.assert_gradients_cross_the_cut(model, x, list(model.parameters()))


@every_model
def test_configurations_build_the_same_model_again(make):
    model = make()
    again = DecoderLM(DecoderConfig.from_dict(model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    x, _ = tokens()
    assert torch.equal(again(x), model(x))


@every_model
def test_it_learns_a_sequence_by_heart(make):
    model = make()
    ids = torch.randint(VOCAB, (1, 16))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        logits = model(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 < math.log(VOCAB)


SIZES = {
    # layers (5 dim^2 + 3 dim glu) + theta + embedding and head
    "tnl_385m": 24 * (5 * 1024**2 + 3 * 1024 * 2816) + 1024 + 2 * 64000 * 1024,
    "tnl_1b": 16 * (5 * 2048**2 + 3 * 2048 * 5632) + 2048 + 2 * 64000 * 2048,
    "tnl_7b": 30 * (5 * 4096**2 + 3 * 4096 * 11008) + 4096 + 2 * 64000 * 4096,
    # conv: 6 dim^2 + biases 5 dim + kernel 6 dim; Taylor: 2 dim heads f + 2 dim^2; window: 4 dim^2; glu 6 dim^2; norms
    "based_360m": 17 * (6 * 1024**2 + 11 * 1024) + 5 * (2 * 1024 * 256 + 2 * 1024**2) + 5 * 4 * 1024**2
    + 27 * (6 * 1024**2 + 2 * 1024) + 1024 + 50264 * 1024,
    "based_1b": 22 * (6 * 1792**2 + 11 * 1792) + 7 * (2 * 1792 * 256 + 2 * 1792**2) + 7 * 4 * 1792**2
    + 36 * (6 * 1792**2 + 2 * 1792) + 1792 + 50264 * 1792,
    # layers (3 dim^2 + 3 dim glu + scores (dim / 2 + 1) heads + norms and residual scales 4 dim) + norm + embedding
    "doge_20m": 8 * (3 * 256**2 + 3 * 256 * 512 + 129 * 2 + 4 * 256) + 256 + 32768 * 256,
    "doge_60m": 16 * (3 * 512**2 + 3 * 512 * 1024 + 257 * 4 + 4 * 512) + 512 + 32768 * 512,
    "doge_160m": 24 * (3 * 768**2 + 3 * 768 * 1536 + 385 * 6 + 4 * 768) + 768 + 32768 * 768,
    "doge_320m": 32 * (3 * 1024**2 + 3 * 1024 * 2048 + 513 * 8 + 4 * 1024) + 1024 + 32768 * 1024,
    "doge_40m": 8 * (3 * 256**2 + 3 * 256 * 1024 + 129 * 2 + 4 * 256) + 256 + 128256 * 256,
    "doge_100m": 16 * (3 * 512**2 + 3 * 512 * 1536 + 257 * 4 + 4 * 512) + 512 + 128256 * 512,
    "doge_260m": 24 * (3 * 768**2 + 3 * 768 * 2304 + 385 * 6 + 4 * 768) + 768 + 128256 * 768,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_by_their_parameters(name):
    with torch.device("meta"):
        model = create(name)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]


def test_the_sizes_are_what_their_names_say():
    """Based counts everything, TransNormerLLM its layers and one of the two matrices of the vocabulary."""
    assert 0.355e9 < SIZES["based_360m"] < 0.365e9
    assert 1.3e9 < SIZES["based_1b"] < 1.4e9
    assert 0.38e9 < SIZES["tnl_385m"] - 64000 * 1024 < 0.40e9
    assert 0.95e9 < SIZES["tnl_1b"] - 64000 * 2048 < 1.05e9
    assert 6.5e9 < SIZES["tnl_7b"] - 64000 * 4096 < 7.5e9
    published = {"doge_20m": 13.1e6, "doge_60m": 54.6e6, "doge_160m": 152e6, "doge_320m": 336e6}
    assert all(SIZES[name] == pytest.approx(size, rel=0.006) for name, size in published.items())


def test_the_state_of_published_models_does_not_grow():
    with torch.device("meta"):
        lightning, hybrid = create("tnl_385m"), create("based_360m")
    assert lightning.state_bytes(10) == lightning.state_bytes(10**6) == 4 * 8 * 128**2 * (24 + 1)
    assert hybrid.state_bytes(128) == hybrid.state_bytes(10**6)
    taylor, window, convolution = 16 * 153 * 65, 2 * 128 * 1024, 2 * 2048
    assert hybrid.state_bytes(128) == 4 * (5 * taylor + 5 * window + 17 * convolution)


def test_decay_falls_from_layer_to_layer():
    model = tnl(3, 16, 2, 24, vocab_size=VOCAB)
    rates = torch.tensor([block.mixer.rates for block in model.blocks])
    assert (rates[:-1] > rates[1:]).all()
    assert [block.mixer.lrpe is not None for block in model.blocks] == [True, False, False]


def test_fresh_weights_follow_the_configuration():
    config = DecoderConfig(300, 64, (AttentionSpec(bias=True),) * 8, glu_dim=128, scaled_init=True, tied_head=False)
    model = DecoderLM(config)
    block = model.blocks[3]
    for weight in (
        model.embedding.weight,
        model.head.weight,
        block.mixer.qkv_proj.weight,
        block.channel_mixer.in_proj.weight,
    ):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for weight in (block.mixer.out_proj.weight, block.channel_mixer.out_proj.weight):
        assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert not block.mixer.qkv_proj.bias.any()


def test_embeddings_are_scaled_where_the_configuration_says_so():
    x, _ = tokens()
    plain = tnl(1, 16, 2, 24, vocab_size=VOCAB, scale_embedding=False)
    scaled = tnl(1, 16, 2, 24, vocab_size=VOCAB)
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.embedding.weight *= 4  # sqrt(16)
    torch.testing.assert_close(scaled(x), plain(x))


def test_residual_scales_stand_before_both_branches():
    config = DecoderConfig(VOCAB, 16, (AttentionSpec(),), glu_dim=24, residual_scale=True)
    model, x = DecoderLM(config).double(), torch.randn(2, 5, 16, dtype=torch.float64)
    block = model.blocks[0]
    before, _ = block(x, None, None)
    with torch.no_grad():
        block.mixer_residual.copy_(torch.randn(16))
        block.channel_residual.copy_(torch.randn(16))
    middle = x * block.mixer_residual + block.mixer(block.mixer_norm(x))
    after = middle * block.channel_residual + block.channel_mixer(block.channel_norm(middle))
    torch.testing.assert_close(block(x, None, None)[0], after)
    plain = DecoderLM(DecoderConfig(VOCAB, 16, (AttentionSpec(),), glu_dim=24)).double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "residual" not in k})
    assert torch.equal(plain.blocks[0](x, None, None)[0], before)


def test_dropout_is_for_training():
    model = DecoderLM(DecoderConfig(VOCAB, 16, (AttentionSpec(),), embedding_dropout=0.5))
    x, _ = tokens()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DecoderLM(DecoderConfig(VOCAB, 16, ())), "mixers must name at least one layer"),
        (lambda: DecoderLM(DecoderConfig(0, 16, (AttentionSpec(),))), "vocab_size must be at least 1, got 0"),
        (lambda: DecoderLM(DecoderConfig(5, 18, (AttentionSpec(),))), "dim 18 must be a multiple of heads 4"),
        (lambda: tnl(2, 16, 2, 24, lrpe_layers=(2,)), r"lrpe_layers must be in \[0, 2\), got 2"),
        (lambda: based(3, 16, 2, (1,), (1,)), r"layers \[1\] are in taylor_layers and in window_layers"),
        (lambda: based(3, 16, 2, (1,), (3,)), r"window_layers must be in \[0, 3\), got 3"),
        (lambda: MODELS["tnl"]()(torch.zeros(3, dtype=torch.long)), r"ids must be \[batch, tokens\], got shape \(3,\)"),
        (lambda: MODELS["tnl"]()(tokens()[0], state=MODELS["transformer"]()(tokens()[0], return_state=True)[1]),
         "state must be a HybridState of 3 layers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mixer_of_ones_own_works_in_a_decoder():
    """What others need to add a mixer: a layer, a spec, nothing else."""
    from dataclasses import dataclass
    from typing import ClassVar

    from windeye.memory import TensorState
    from windeye.models import MIXERS, mixer
    from windeye.nn import SequenceMixer
    from windeye.nn.mixer import expect, seen_after

    @dataclass
    class MeanState(TensorState):
        total: torch.Tensor

    class RunningMean(SequenceMixer):
        def mix(self, x, lengths, state):
            past = expect(state, MeanState)
            start = x.new_zeros(len(x), 1, self.dim) if past is None else past.total[:, None]
            sums = torch.cat((start, start + x.cumsum(1)), dim=1)
            before = torch.zeros(len(x), 1) if past is None else past.seen[:, None]
            out = sums[:, 1:] / (before + torch.arange(1, x.shape[1] + 1))[..., None]
            end = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
            total = sums[torch.arange(len(x)), end]
            return out, MeanState(seen_after(x, lengths, past), total)

        def state_bytes(self, _n):
            return 8 * self.dim

    try:

        @mixer("running_mean")
        @dataclass(frozen=True)
        class RunningMeanSpec:
            kind: ClassVar[str]

            def build(self, dim, _layer, _layers):
                return RunningMean(dim)

        model = wide(lambda: DecoderLM(DecoderConfig(VOCAB, 16, (RunningMeanSpec(), AttentionSpec()))))
        x, other = tokens()
        kit.assert_split_invariant(model, x)
        kit.assert_padding_invariant(model, x, other)
        assert DecoderConfig.from_dict(model.config.to_dict()) == model.config
    finally:
        MIXERS.pop("running_mean")
        TensorState.kinds.pop("MeanState")
