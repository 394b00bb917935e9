"""Vision transformers: equal to a plain one from the same file, for images of any size, all of them or some patches."""

import math

import pytest
import torch
import torch.nn.functional as F

from windeye.models import create, identify
from windeye.models.registry import PRESETS
from windeye.models.vision import VisionTransformer, ViTConfig, vit
from windeye.models.vision.vit import WEIGHTS

EXACT = {"rtol": 1e-10, "atol": 1e-11}
PUBLISHED = {"vit_s": 22_050_664, "vit_b": 86_567_656, "vit_l": 304_326_632, "vit_h": 632_045_800}
"""Parameters with a head of 1000 classes."""


def small(**settings):
    return vit(16, 2, 4, **{"patch": 4, "img_size": (12, 20), "num_classes": 5} | settings).double().eval()


def images(height=12, width=20, batch=2, channels=3):
    return torch.randn(batch, channels, height, width, dtype=torch.float64)


def plain(weights, x, heads, patch):
    """Logits of official weights, by the textbook, for images of whole patches."""
    x = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], patch).flatten(2).mT
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], dim=1) + weights["pos_embed"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for block in range(2):
        name = f"blocks.{block}"
        query, key, value = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=-1)
        seen = []
        for q, k, v in zip(*(t.chunk(heads, dim=-1) for t in (query, key, value)), strict=True):
            seen.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        x = x + linear(torch.cat(seen, dim=-1), f"{name}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
    return linear(norm(x, "norm")[:, 0], "head")


def shaken(model):
    """Nothing at zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_it_is_the_textbooks_network_from_the_same_file():
    model, x = shaken(small(positions="table")), images()
    assert torch.allclose(model(x), plain(WEIGHTS.export(model), x, heads=4, patch=4), **EXACT)


def test_waves_are_a_table_that_needs_no_weights():
    model, twin, x = shaken(small()), small(positions="table"), images()
    twin.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        twin.position_table[:, :1] = 0.0
        twin.position_table[0, 1:] = model.positions((3, 5))
    assert torch.allclose(model(x), twin(x), **EXACT)


@pytest.mark.parametrize("positions", ["waves", "table"])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("size", [(12, 20), (13, 7), (1, 1), (40, 3)])
def test_images_of_any_size(positions, class_token, size):
    model, x = small(positions=positions, class_token=class_token), images(*size)
    rows, columns = (-(-side // 4) for side in size)
    assert model(x).shape == (2, 5)
    assert model.forward_features(x).shape == (2, class_token + rows * columns, 16)
    (found,) = model.features(x)
    assert found.shape == (2, 16, rows, columns)
    assert model.feature_info[0].reduction == 4
    filled = F.pad(x, (0, 4 * columns - size[1], 0, 4 * rows - size[0]))
    assert torch.allclose(model(filled), model(x), **EXACT)


def test_all_patches_in_any_order_are_the_image():
    model, x = shaken(small()), images()
    order = torch.stack([torch.randperm(15) for _ in range(2)])
    tokens, shuffled = model.tokens(x), model.tokens(x, order)
    assert torch.allclose(shuffled[:, 0], tokens[:, 0], **EXACT)
    back = tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, 16))
    assert torch.allclose(shuffled[:, 1:], back, **EXACT)


def test_nothing_depends_on_hidden_patches():
    model, x = shaken(small()), images().requires_grad_()
    visible = torch.tensor([[0, 7, 9], [14, 2, 3]])
    model.tokens(x, visible).square().sum().backward()
    touched = x.grad.abs().sum(1).unflatten(2, (5, 4)).unflatten(1, (3, 4)).sum((2, 4)).flatten(1) > 0
    expected = torch.zeros(2, 15, dtype=torch.bool).scatter(1, visible, True)
    assert torch.equal(touched, expected)


def test_wrong_patches_and_images_are_named():
    model = small()
    with pytest.raises(ValueError, match=r"map of 3 x 5, from 0 to 14, got 3 to 15"):
        model.tokens(images(), torch.tensor([[3, 15], [4, 5]]))
    with pytest.raises(ValueError, match=r"visible must be \[batch 2, seen\], got \(1, 2\)"):
        model.tokens(images(), torch.tensor([[3, 4]]))
    with pytest.raises(ValueError, match=r"in_chans 3, height, width\], got \(2, 1, 12, 20\)"):
        model(images(channels=1))
    with pytest.raises(ValueError, match="positions must be one of waves, table, got 'none'"):
        ViTConfig(8, 1, 2, positions="none")


@pytest.mark.parametrize("positions", ["waves", "table"])
def test_every_parameter_learns_and_rates_know_what_not_to_decay(positions):
    model = small(positions=positions)
    model(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    from windeye.train import AdamW

    decayed, others = AdamW().groups(model)
    kept = {id(p) for p in others["params"]}
    assert {"class_token"} <= model.no_weight_decay() <= {"class_token", "position_table"}
    assert all(id(getattr(model, name)) in kept for name in model.no_weight_decay())
    assert len(decayed["params"]) == 2 * 4 + 2  # four maps in each block, patches, head


def test_rates_shrink_away_from_the_head():
    model = small(positions="table")
    groups = model.parameter_groups(1.0, 0.05, layer_decay=0.5)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found[id(model.head.weight)] == (1.0, 0.05)
    assert found[id(model.head.bias)] == (1.0, 0.0)
    assert found[id(model.blocks[1].mixer.qkv.weight)] == (0.5, 0.05)
    assert found[id(model.blocks[0].norm1.weight)] == (0.25, 0.0)
    assert found[id(model.class_token)] == found[id(model.position_table)] == (0.125, 0.0)
    assert len(found) == len(list(model.parameters()))


def test_checkpointing_gives_the_same_gradients():
    model, x = small().train(), images()
    found = []
    for on in (False, True):
        model.set_grad_checkpointing(on)
        model.zero_grad()
        model(x).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, **EXACT) for a, b in zip(*found, strict=True))


def test_a_new_head_and_none():
    model = small()
    model.reset_head(7)
    assert model(images()).shape == (2, 7)
    model.reset_head(0)
    x = images()
    assert torch.equal(model(x), model.forward_features(x)[:, 0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_known_by_their_files(name):
    with torch.device("meta"):
        model = create(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
    shapes = WEIGHTS.shapes(model)
    for file in (shapes, {n: s for n, s in shapes.items() if not n.startswith("head")}):
        weights = {n: torch.empty(s, device="meta") for n, s in file.items()}
        found = identify(weights | {"mask_token": torch.empty(1, 1, 512), "decoder_pred.weight": torch.empty(1)})
        assert found.names == (name,)
        with torch.device("meta"):
            assert WEIGHTS.shapes(create(name, **found.settings)) == file


def test_a_table_is_interpolated_when_asked_for():
    small_, large = small(positions="table", img_size=(12, 12)), small(positions="table", img_size=(24, 24))
    file = WEIGHTS.export(small_)
    with pytest.raises(ValueError, match="pos_embed has shape"):
        WEIGHTS.load(large, file)
    WEIGHTS.load(large, file, resize=True)
    assert torch.equal(large.position_table[:, 0], small_.position_table[:, 0])
    x = images(24, 24)
    assert torch.allclose(large(x), small_(x), **EXACT)  # the small one interpolates by itself


@pytest.mark.parametrize("positions", ["waves", "table"])
def test_one_compiled_graph_serves_images_of_all_sizes(positions):
    model, graphs = small(positions=positions, img_size=(12, 12)).eval(), []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for size in ((24, 36), (16, 13), (12, 12)):
            x = images(*size)
            torch.testing.assert_close(compiled(x), model(x), **EXACT)
    assert len(graphs) == 1


def test_it_is_there_by_name():
    model = create("vit_micro", in_chans=1)
    assert isinstance(model, VisionTransformer)
    assert model(torch.randn(1, 1, 48, 48)).shape == (1, 10)
    assert PRESETS["vit_micro"].weights is WEIGHTS
    assert ViTConfig.from_dict(model.config.to_dict()) == model.config
