"""Probes: the encoder is read and never changed, whatever it is."""

import copy
import hashlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from windeye.models.probing import FrozenEncoder, Probe, ProbeHead
from windeye.models.vision import VisionTransformer, ViTConfig, swin
from windeye.nn.pools import POOLS, create_pool
from windeye.train import LARS, AdamW, Cosine, fit

CLASSES = 3


class Restless(nn.Module):
    """An encoder with all that moves in training: batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.norm = nn.BatchNorm2d(24)
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(self.patches(images))).flatten(2).transpose(1, 2)


def state_of(module):
    """A digest of every bit of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def images(count=12):
    return torch.randn(count, 3, 16, 16)


def batches_of(x, y):
    def batches(step):
        rows = (torch.arange(6) + 6 * step) % len(x)
        return x[rows], y[rows]

    return batches


def test_training_leaves_the_encoder_as_it_was():
    backbone = Restless()
    backbone(images())  # statistics that are not those of a fresh norm
    probe = Probe(backbone, create_pool("ep", 24, queries=4), CLASSES)
    before, head = state_of(backbone), state_of(probe.head)
    fit(probe, batches_of(images(), torch.randint(3, (12,))), steps=4, optimiser=LARS(rate=0.5), progress=False)
    assert state_of(backbone) == before
    assert state_of(probe.head) != head
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert probe.train().training
    assert not any(module.training for module in backbone.modules())


def test_only_the_head_is_trained():
    probe = Probe(Restless(), create_pool("ep", 24, queries=4), CLASSES)
    trained = {name for name, p in probe.named_parameters() if p.requires_grad}
    assert trained == {"head.pool.queries", "head.pool.value.weight", "head.classifier.weight", "head.classifier.bias"}


@pytest.mark.parametrize("kind", ["ep", "aim", "average"])
def test_a_head_on_kept_tokens_is_trained_to_the_same_bits_as_through_the_probe(kind):
    x, y = images(), torch.randint(3, (12,))
    settings = {"ep": {"queries": 4}, "aim": {"heads": 4}, "average": {}}[kind]
    probe = Probe(Restless(), create_pool(kind, 24, **settings), CLASSES)
    head = copy.deepcopy(probe.head)
    kept, _ = probe.tokens(x)
    options = {"steps": 6, "optimiser": AdamW(1e-2), "schedule": Cosine(warm_up=1, final=0.0), "progress": False}
    through = fit(probe, batches_of(x, y), **options)
    alone = fit(head, batches_of(kept, y), **options)
    assert [row["loss"] for row in through] == [row["loss"] for row in alone]
    assert state_of(head) == state_of(probe.head)


@pytest.mark.parametrize("kind", [kind for kind in POOLS if kind != "class_token"])
def test_every_pool_reads_the_map_of_a_hierarchical_backbone(kind):
    backbone = swin(12, (1, 1), (2, 2), window=4, num_classes=0)
    settings = {"ep": {"queries": 4}, "clip": {"tokens": 16}, "aim": {"heads": 4}, "jepa": {"heads": 4}}.get(kind, {})
    probe = Probe(backbone, create_pool(kind, 24, **settings), CLASSES).eval()
    x = torch.randn(2, 3, 32, 32)
    *_, last = backbone.maps(x)
    torch.testing.assert_close(probe(x), probe.head(last))


def test_stages_and_the_final_norm_of_a_hierarchical_backbone():
    backbone, x = swin(12, (1, 1), (2, 2), window=4, num_classes=0).eval(), torch.randn(2, 3, 32, 32)
    first, last = backbone.maps(x)
    torch.testing.assert_close(FrozenEncoder(backbone, stage=0)(x)[0], first)
    torch.testing.assert_close(FrozenEncoder(backbone, stage=-1)(x)[0], last)
    torch.testing.assert_close(FrozenEncoder(backbone, final_norm=True)(x)[0], backbone.forward_features(x))


@pytest.mark.parametrize("class_token", [False, True])
def test_tokens_of_a_vision_transformer(class_token):
    config = ViTConfig(dim=16, depth=1, heads=2, patch=8, num_classes=0, class_token=class_token)
    backbone, x = VisionTransformer(config).eval(), torch.randn(2, 3, 32, 24)
    tokens = backbone.tokens(x)
    torch.testing.assert_close(FrozenEncoder(backbone)(x)[0], tokens[:, int(class_token) :])
    torch.testing.assert_close(FrozenEncoder(backbone, keep="all")(x)[0], tokens)
    torch.testing.assert_close(FrozenEncoder(backbone, keep="first")(x)[0], tokens[:, :1])
    normed = FrozenEncoder(backbone, keep="all", final_norm=True)(x)[0]
    torch.testing.assert_close(normed, backbone.forward_features(x))
    probe = Probe(backbone, create_pool("class_token", 16), CLASSES).eval()
    torch.testing.assert_close(probe(x), probe.head(tokens))


def test_models_in_the_manner_of_timm():
    class Timm(nn.Module):
        num_prefix_tokens = 2

        def forward_features(self, images):
            return images.flatten(2).transpose(1, 2)

    x = images()
    torch.testing.assert_close(FrozenEncoder(Timm())(x)[0], x.flatten(2).transpose(1, 2)[:, 2:])
    torch.testing.assert_close(FrozenEncoder(Timm(), leading=0)(x)[0], x.flatten(2).transpose(1, 2))


def test_maps_of_a_probe_lie_on_the_map():
    probe = Probe(swin(12, (1, 1), (2, 2), window=4, num_classes=0), create_pool("ep", 24, queries=4), CLASSES)
    maps = probe.maps(torch.randn(2, 3, 40, 32))
    assert maps.shape == (2, 4, 5, 4)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 4))


def test_a_backbone_in_half_precision_feeds_a_head_in_single_precision():
    probe = Probe(Restless().bfloat16(), create_pool("ep", 24, queries=4), CLASSES)
    assert probe(images().bfloat16()).dtype == torch.float32


def test_a_vision_transformer_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    backbone = transformers.ViTModel(config).eval()
    x = torch.randn(2, 3, 32, 32)
    probe = Probe(backbone, create_pool("ep", 16, queries=4), CLASSES).eval()
    tokens = backbone(x).last_hidden_state
    assert probe.encoder.leading == 1
    torch.testing.assert_close(probe(x), probe.head(tokens[:, 1:]))


def test_padding_of_a_text_encoder_changes_nothing():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    backbone = transformers.BertModel(config).eval()
    ids = torch.randint(1, 40, (2, 6))
    ids[1, 4:] = 0
    for kind, settings in (("ep", {"queries": 4}), ("average", {}), ("aim", {"heads": 2})):
        probe = Probe(backbone, create_pool(kind, 16, **settings), CLASSES, pad_token_id=0).eval()
        out = probe(ids)
        torch.testing.assert_close(out[1:], probe(ids[1:, :4]))
        given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        torch.testing.assert_close(probe(given), out)
        assert probe.maps(ids)[1, :, 4:].eq(0).all() if kind == "ep" else True


@pytest.mark.parametrize(
    ("backbone", "settings", "match"),
    [
        (nn.Identity(), {"keep": "some"}, "keep must be one of patches, all, first, got 'some'"),
        (nn.Identity(), {"final_norm": True}, "Identity decides itself"),
        (nn.Identity(), {"stage": 0}, "stage is for hierarchical backbones, not for Identity"),
        (swin(12, (1, 1), (2, 2), num_classes=0), {"stage": 2}, r"stage must be in \[-2, 2\), got 2"),
        (swin(12, (1, 1), (2, 2), num_classes=0), {"stage": 0, "final_norm": True}, "that of the last stage"),
        (swin(12, (1, 1), (2, 2), num_classes=0), {"keep": "first"}, "has no first token"),
    ],
)
def test_settings_that_a_backbone_does_not_have_are_refused(backbone, settings, match):
    with pytest.raises(ValueError, match=match):
        FrozenEncoder(backbone, **settings)


def test_backbones_without_tokens_are_refused():
    with pytest.raises(ValueError, match=r"must give \[batch, tokens, dim\].*got shape \(2, 5\)"):
        FrozenEncoder(nn.Identity())(torch.randn(2, 5))
    with pytest.raises(ValueError, match="gives 2 tokens, of which 2 stand before the patches"):
        FrozenEncoder(nn.Identity(), leading=2)(torch.randn(1, 2, 5))

    class Wordy(nn.Module):
        def forward(self, _):
            return SimpleNamespace(logits=1)

    with pytest.raises(TypeError, match="Wordy must give a tensor of tokens, got SimpleNamespace"):
        FrozenEncoder(Wordy())(torch.randn(1, 2, 5))
    with pytest.raises(ValueError, match="dim 8"):
        Probe(nn.Identity(), create_pool("average", 8), CLASSES)(torch.randn(2, 4, 5))
    with pytest.raises(ValueError, match="classes must be at least 1"):
        ProbeHead(create_pool("average", 8), 0)
