"""Official checkpoints: strict in both directions, every complaint names its tensor, files of every kind."""

import pytest
import torch
from safetensors.torch import save_file

import windeye.models
from models.official import there_and_back
from windeye.models import WeightMap, based, create, doge, names, read_checkpoint, tnl
from windeye.models.based import WEIGHTS as BASED
from windeye.models.doge import WEIGHTS as DOGE
from windeye.models.registry import PRESETS
from windeye.models.tnl import WEIGHTS as TNL

FAMILIES = {
    "tnl": (TNL, lambda: tnl(2, 16, 2, 24, vocab_size=30)),
    "tnl, tied": (TNL, lambda: tnl(2, 16, 2, 24, vocab_size=30, tied_head=True)),
    "based": (BASED, lambda: based(4, 16, 2, (1,), (2,), window=4, vocab_size=30, glu_dim=24)),
    "based, bias": (BASED, lambda: based(4, 16, 2, (1,), (2,), window=4, vocab_size=30, glu_dim=24, conv_bias=True)),
    "doge": (DOGE, lambda: doge(2, 16, 4, 2, 24, vocab_size=30)),
    "doge, second": (DOGE, lambda: doge(2, 16, 4, 2, 24, vocab_size=30, score_heads="kv", qk_norm=True)),
    "doge, untied": (DOGE, lambda: doge(2, 16, 4, 2, 24, vocab_size=30, tied_head=False)),
}
every_family = pytest.mark.parametrize(("weights", "make"), FAMILIES.values(), ids=FAMILIES)


@every_family
def test_there_and_back_is_bit_identical(weights, make):
    official, report = there_and_back(weights, make)
    assert len(report.loaded) + len(report.copies) == len(official)


@every_family
def test_the_file_has_its_own_memory(weights, make):
    model = make()
    official = weights.export(model)
    before = {name: tensor.clone() for name, tensor in official.items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert all(torch.equal(official[name], before[name]) for name in official)


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("titans")])
def test_every_published_size_has_official_names_for_all_its_weights(name):
    with torch.device("meta"):
        model = create(name)
    weights = PRESETS[name].weights
    official = [theirs for ours in model.state_dict() for theirs in weights.official(ours)]
    assert len(official) == len(set(official))


def test_the_names_are_those_of_the_released_files():
    assert sorted(TNL.export(tnl(1, 8, 2, 8, vocab_size=5))) == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.channel_mixer.l1.weight",
        "model.layers.0.channel_mixer.l2.weight",
        "model.layers.0.channel_mixer.l3.weight",
        "model.layers.0.token_mixer.lrpe.theta",
        "model.layers.0.token_mixer.out_proj.weight",
        "model.layers.0.token_mixer.qkvu_proj.weight",
    ]


def test_earlier_names_are_read_and_written():
    model, other = (doge(1, 8, 2, 1, 8, vocab_size=5) for _ in range(2))
    earlier = DOGE.export(model, earlier=True)
    assert sorted(earlier) == [
        "lm_head.weight",
        "model.final_layernorm.weight",
        "model.layers.0.feed_forward.down_proj.weight",
        "model.layers.0.feed_forward.gate_proj.weight",
        "model.layers.0.feed_forward.up_proj.weight",
        "model.layers.0.post_layernorm.weight",
        "model.layers.0.post_residual.weight",
        "model.layers.0.pre_layernorm.weight",
        "model.layers.0.pre_residual.weight",
        "model.layers.0.self_attn.A",
        "model.layers.0.self_attn.dt_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.word_embed.weight",
    ]
    DOGE.load(other, earlier)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    now = DOGE.export(model)
    assert len(now) == len(earlier)
    assert not now.keys() & earlier.keys() - {n for n in now if "self_attn" in n or n == "lm_head.weight"}


def test_one_tensor_under_two_names_is_refused():
    model = doge(1, 8, 2, 1, 8, vocab_size=5)
    both = DOGE.export(model) | DOGE.export(model, earlier=True)
    with pytest.raises(ValueError, match=r"not a Doge: it has model.embed_tokens.weight under two names"):
        DOGE.load(model, both)


def test_mixtures_of_experts_are_refused_by_name():
    model = doge(1, 8, 2, 1, 8, vocab_size=5)
    experts = DOGE.export(model) | {"model.layers.0.mlp.router_gate.weight": torch.zeros(10, 8)}
    with pytest.raises(ValueError, match=r"mlp.router_gate.weight says that it is a mixture of experts \(CDMoE\)"):
        DOGE.load(model, experts)


def small():
    model = based(3, 16, 2, (1,), (2,), vocab_size=30, glu_dim=24)
    return model, BASED.export(model)


def test_everything_that_is_wrong_is_listed_and_nothing_is_loaded():
    model, official = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    del official["transformer.ln_f.weight"]
    official["transformer.layers.0.mixer.conv.conv.bias"] = torch.zeros(32)
    official["transformer.layers.1.mlp.fc2.weight"] = torch.zeros(16, 25)
    official["transformer.layers.1.norm1.weight"] += 1
    with pytest.raises(ValueError, match="this checkpoint is not a Based of these sizes") as error:
        BASED.load(model, official)
    said = str(error.value).splitlines()[1:]
    assert [line.strip() for line in said] == [
        "missing transformer.ln_f.weight",
        "unexpected transformer.layers.0.mixer.conv.conv.bias (32,)",
        "transformer.layers.1.mlp.fc2.weight has shape (16, 25) but the model needs (16, 24)",
    ]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_tied_head_must_repeat_the_embedding_if_it_is_there():
    model, official = small()
    assert BASED.load(model, official).copies == ("lm_head.weight",)
    del official["lm_head.weight"]
    assert BASED.load(model, official).copies == ()
    official["lm_head.weight"] = torch.zeros(30, 16)
    with pytest.raises(ValueError, match=r"lm_head.weight should repeat transformer.embeddings.word_embeddings.weight"):
        BASED.load(model, official)


def test_a_leading_prefix_and_metrics_are_no_weights():
    model, official = small()
    report = BASED.load(
        model, {f"model.{k}": v for k, v in official.items()} | {"val_metrics.loss.total": torch.ones(1)}
    )
    assert report.dropped == ("val_metrics.loss.total",)
    assert str(report) == f"{len(report.loaded)} tensors loaded, 1 copies, 1 dropped"


def test_a_tensor_without_a_rule_is_an_error_not_a_silence():
    with pytest.raises(KeyError, match=r"Based has no name for blocks.3.mixer.lrpe.theta"):
        BASED.official("blocks.3.mixer.lrpe.theta")


def test_several_official_tensors_are_stacked_in_order():
    rows = WeightMap("x", {"weight": ("a", "b")})
    layer = torch.nn.Linear(2, 4, bias=False)
    rows.load(layer, {"a": torch.zeros(2, 2), "b": torch.ones(2, 2)})
    assert layer.weight.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


def test_files_and_folders_of_shards(tmp_path):
    model, official = small()
    entries = list(official.items())
    save_file(official, tmp_path / "one.safetensors")
    torch.save({"state_dict": official}, tmp_path / "one.bin")
    for folder, write in (("a", save_file), ("b", torch.save)):
        (tmp_path / folder).mkdir()
        for i, part in enumerate((entries[:5], entries[5:])):
            suffix = "safetensors" if folder == "a" else "bin"
            write(dict(part), tmp_path / folder / f"part-{i}.{suffix}")
    settings = {
        "layers": 3, "dim": 16, "heads": 2, "taylor_layers": (1,), "window_layers": (2,), "vocab_size": 30,
        "glu_dim": 24,
    }  # fmt: skip
    for place in ("one.safetensors", "one.bin", "a", "b"):
        loaded = create("based_360m", tmp_path / place, **settings)
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    loaded = create("based_360m", tmp_path / "ours.pt", **settings)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_missing_and_contradicting_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: expected \*.safetensors"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        read_checkpoint(tmp_path / "none.safetensors")
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"b.safetensors repeats x of another file"):
        read_checkpoint(tmp_path)


def test_files_of_other_kinds_and_damaged_ones_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").write_text("")
    torch.save({"a": torch.randn(100)}, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:600])
    for name in ("text.pth", "empty.pth", "half.pth"):
        with pytest.raises(ValueError, match=f"{name} is no file of weights that torch saved"):
            read_checkpoint(tmp_path / name)


def test_names_of_models():
    with pytest.raises(ValueError, match=r"unknown model 'gpt'; known are .*based_360m, .*tnl_385m"):
        create("gpt")
    with pytest.raises(TypeError, match="depth"):
        create("tnl_385m", depth=3)
    with pytest.raises(ValueError, match="model 'tnl_385m' is registered twice"):
        windeye.models.register("tnl_385m", tnl)
