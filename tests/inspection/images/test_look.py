"""What is drawn of a layer is what the layer does: known answers, every mixer, odd sizes."""

import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("PIL", reason="Pillow is missing: pip install 'windeye[vision]'")

from windeye.inspection.images import capture, look, mixers_of
from windeye.inspection.images.mixers import told
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, MergeSpec, StageSpec, vitae
from windeye.nn.mixers import (
    MIXERS,
    BiLevelRoutingSpec,
    FullSpec,
    HiLoSpec,
    MultiScaleFusionSpec,
    NeighborhoodSpec,
    SpatialReductionSpec,
    StripeSpec,
    VSASpec,
    WindowSpec,
)

PHOTO = np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)


def backbone(*mixers, dim=12, heads=2, in_chans=3, stages=1):
    found = tuple(
        StageSpec(dim, heads, MergeSpec() if stage else ConvSpec(), tuple(mixers), position=3)
        for stage in range(stages)
    )  # fmt: skip
    model = HierarchicalBackbone(BackboneConfig(found, in_chans, 4, img_size=(32, 32)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


@pytest.mark.parametrize("kind", MIXERS)
def test_every_registered_mixer_is_looked_at(kind, tmp_path):
    """A new kind is looked at by registering: its rows of the dense matrix lie where its tokens are."""
    model = backbone(MIXERS[kind](), None, MIXERS[kind](), stages=2)
    x = torch.randn(3, 53, 38, dtype=torch.float64)
    seen = look(model, x, [(0, 0), (52, 37), (20, 33)])
    assert [str(layer.layer) for layer in seen.layers if not layer.layer.branch] == ["0.0", "0.2", "1.0", "1.2"]
    dense = {}
    capture(
        model, x[None], lambda layer, mixer, x: dense.update({layer: (mixer, x.shape[1:3], mixer.to_dense(x)[0])})
    )  # fmt: skip
    assert dense.keys() == {layer.layer for layer in seen.layers}
    for layer in seen.layers:
        mixer, (tall, wide), matrix = dense[layer.layer]
        assert layer.place.grid == (tall, wide)
        for query, (y, x) in enumerate(layer.tokens):
            row = matrix[:, y * wide + x].numpy()
            assert layer.maps[query].shape == (mixer.heads, tall, wide)
            if mixer.span(tall, wide) == (1, 1):
                across = next(n for n in range(wide, 10 * wide) if row.shape[1] % n == 0 and row.shape[1] // n >= tall)
                row = row.reshape(mixer.heads, -1, across)[:, :tall, :wide]
                np.testing.assert_allclose(layer.maps[query], row, atol=1e-12)
            else:
                np.testing.assert_allclose(layer.maps[query].sum(axis=(1, 2)), row.sum(axis=1), atol=1e-12)
        pixels = layer.place.on_pixels(layer.maps, (53, 38))
        for y in range(tall):
            for z in range(wide):
                block = pixels[:, :, y * layer_stride(layer) :, z * layer_stride(layer) :]
                block = block[:, :, : layer_stride(layer), : layer_stride(layer)]
                np.testing.assert_allclose(block.sum(axis=(2, 3)), layer.maps[:, :, y, z], atol=1e-12)
        assert layer.elsewhere.min() > -1e-9
    page = seen.save(tmp_path)
    assert page.read_text().count("data:image/png") >= 3
    json.loads((tmp_path / "look.json").read_text())


def layer_stride(layer):
    return 4 * 2**layer.layer.stage


def one_hot(model):
    """A model whose every query puts all weight on one token: its keys know nothing but whether they are that token.

    The stem sees the pixel of value 1 (the rest is 0) as a channel; queries are a constant, keys are that channel.
    """
    mixer = next(iter(mixers_of(model).values()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        stem = model.entries[0]
        stem.conv.weight[0] = 1.0  # the target's token has channel 0
        stem.conv.bias[1] = 0.5
        stem.norm.weight.fill_(1.0)
        block = next(iter(model.stages[0].children()))
        block.norm1.weight.fill_(1.0)
        mixer.qkv.bias.zero_()
        dim = mixer.dim
        mixer.qkv.bias[:dim] = 30.0
        mixer.qkv.weight[dim : 2 * dim, 0] = 30.0
    return mixer


@pytest.mark.parametrize(("height", "width"), [(37, 50), (16, 16), (9, 41), (5, 3)])
def test_a_query_that_attends_to_one_token_lights_its_pixels(height, width):
    model = backbone(FullSpec(), in_chans=1, dim=8)
    one_hot(model)
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        image = torch.zeros(1, height, width, dtype=torch.float64)
        image[0, y, x] = 1.0
        seen = look(model, image, (height - 1, 0))
        lit = seen.on_pixels()[0].mean(axis=0) > 1e-3
        expected = np.zeros((height, width), dtype=bool)
        expected[y // 4 * 4 : y // 4 * 4 + 4, x // 4 * 4 : x // 4 * 4 + 4] = True
        assert np.array_equal(lit, expected)
        assert seen.on_pixels()[0, 0][expected].sum() == pytest.approx(1.0)


def test_pixels_of_the_photograph_count_whatever_size_the_model_saw():
    model = backbone(WindowSpec(2), in_chans=3)
    for size in ((32, 48), (16, 200), 40, "own", None):
        seen = look(model, PHOTO, (69, 100), size=size)
        assert seen.photo.size == (70, 101)
        here = seen.here.place
        left, top, right, bottom = here.box(seen.here.tokens[0])
        assert (right, bottom) == pytest.approx((101, 70))
        assert seen.on_pixels()[0, :, int(top) :, int(left) :].sum() > 0
        assert seen.on_pixels().sum() == pytest.approx(2.0)


def test_a_model_that_is_bound_to_a_size_sees_the_photograph_stretched():
    model = backbone(MultiScaleFusionSpec(8, window=4, resize=None))
    seen = look(model, PHOTO, (69, 100))
    assert seen.seen == (32, 32)
    assert seen.here.place.box((7, 7))[2:] == pytest.approx((101, 70))
    with pytest.raises(ValueError, match="size must be 32 x 32, the model takes no other"):
        look(model, PHOTO, size=64)


def test_neighbourhoods_lie_around_the_query():
    model = backbone(NeighborhoodSpec(3, dilation=3))
    seen = look(model, torch.randn(3, 64, 80, dtype=torch.float64), (33, 38))
    assert seen.here.tokens == ((8, 9),)
    rows, columns = np.nonzero(seen.maps[0, 0])
    assert sorted(set(rows)) == [5, 8, 11]
    assert sorted(set(columns)) == [6, 9, 12]
    assert seen.here.mixer == "neighborhood, kernel_size=3, dilation=3"


def test_both_branches_of_fusion_are_seen():
    seen = look(backbone(MultiScaleFusionSpec(6, window=3)), torch.randn(3, 38, 40, dtype=torch.float64), (21, 10))
    assert [str(part.layer) for part in seen.branches] == ["0.0", "0.0 window"]
    fused, window = seen.branches
    assert np.count_nonzero(window.maps[0, 0]) == 9
    assert window.mixer == "window inside multi scale fusion, size=6, window=3"
    np.testing.assert_allclose(fused.maps.sum(axis=(2, 3)), 1)
    np.testing.assert_allclose(fused.maps[..., 0], fused.maps[..., 1])  # a global token for every two columns
    assert seen.here is fused
    assert seen.at(0, 0, "window") is window


def test_stripes_and_halves_are_told_apart():
    seen = look(backbone(StripeSpec(2)), torch.randn(3, 40, 40, dtype=torch.float64), (21, 10))
    assert seen.here.kinds() == {"columns": [0], "rows": [1]}
    assert set(np.nonzero(seen.here.mean("columns")[0])[1]) == {2, 3}
    assert set(np.nonzero(seen.here.mean("rows")[0])[0]) == {4, 5}
    model, x = backbone(HiLoSpec(2, 0.5)), torch.randn(3, 40, 40, dtype=torch.float64)
    seen = look(model, x, (21, 10))
    assert np.count_nonzero(seen.here.mean("high")[0]) == 4
    assert np.count_nonzero(seen.here.mean("low")[0]) == 100
    assert seen.here.visible(0, [0]).sum() == 4
    assert list(seen.here.spectra) == ["input", "high", "low"]
    outs = {}
    capture(model, x[None], lambda _, mixer, x: outs.update(out=mixer.attention(x)[0]))
    for kind, head in (("high", 0), ("low", 1)):
        out = outs["out"][:, :, head].numpy()
        away = ((out - out.mean(axis=(0, 1))) ** 2).mean(axis=-1) ** 0.5
        np.testing.assert_allclose(seen.here.outputs[kind], away, atol=1e-12)
    one_kind = look(backbone(HiLoSpec(2, 1.0)), torch.randn(3, 40, 40, dtype=torch.float64))
    assert one_kind.here.kinds() == {"mean": [0, 1]}
    np.testing.assert_allclose(one_kind.here.mean(), one_kind.maps.mean(axis=1))
    assert one_kind.here.spectra is None


@pytest.mark.parametrize("padding", ["right_bottom", "symmetric"])
@pytest.mark.parametrize("size", [(48, 48), (41, 59)])
def test_rectangles_are_the_windows_where_nothing_moves_them(size, padding):
    model = backbone(VSASpec((3, 4), padding=padding))
    mixer = next(iter(mixers_of(model).values()))
    for parameter in mixer.regress.parameters():
        torch.nn.init.zeros_(parameter)
    for query in ((0, 0), (size[0] - 1, size[1] - 1), (20, 30)):
        seen = look(model, torch.randn(3, *size, dtype=torch.float64), query)
        layer = seen.here
        rows, columns = np.nonzero(layer.visible(0))
        assert rows.min() <= layer.tokens[0][0] <= rows.max()
        for left, top, right, bottom in layer.rectangles[0]:
            assert (right - left, bottom - top) == pytest.approx((16, 12))
            ends = [min(right / 4, -(-size[1] // 4)), min(bottom / 4, -(-size[0] // 4))]
            inside = [max(left, 0) / 4, max(top, 0) / 4, *ends]
            assert inside == pytest.approx([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_rectangles_hold_what_is_read_when_they_move_and_stretch():
    model = backbone(VSASpec(4, hide_padding=False))
    seen = look(model, torch.randn(3, 64, 64, dtype=torch.float64), [(20, 20), (50, 3)])
    for query in range(2):
        for head in range(2):
            sides = seen.rectangles[query, head] / 4
            left, right, top, bottom = *sorted(sides[[0, 2]]), *sorted(sides[[1, 3]])
            for inside, low, high in zip(
                np.nonzero(seen.maps[query, head] > 1e-9)[::-1], (left, top), (right, bottom), strict=True
            ):
                step = (high - low) / 4  # of four samples, which a bilinear one of two tokens is around
                assert np.all(inside > low + step / 2 - 1.5)
                assert np.all(inside < high - step / 2 + 0.5)


@pytest.mark.parametrize("padding", ["masked", "input", "projected"])
def test_routes_are_the_regions_that_get_weight(padding):
    model = backbone(BiLevelRoutingSpec(3, keep=2, padding=padding))
    seen = look(model, torch.randn(3, 50, 61, dtype=torch.float64), [(0, 0), (49, 60), (30, 8)])
    routes = seen.routes
    assert routes.chosen.shape[1] == 2
    for query, (y, x) in enumerate(seen.queries):
        left, top, right, bottom = routes.boxes[routes.own[query]]
        assert left <= x < right
        assert top <= y < bottom
        expected = np.zeros((50, 61), dtype=bool)
        for region in routes.chosen[routes.own[query]]:
            left, top, right, bottom = routes.boxes[region].astype(int)
            expected[top:bottom, left:right] = True
        assert np.array_equal(seen.on_pixels()[query].sum(axis=0) > 0, expected)
    assert look(backbone(BiLevelRoutingSpec(2, keep=4)), PHOTO).routes is None


def test_weight_on_padding_is_told():
    layer = look(backbone(WindowSpec(4, pad_input=True)), torch.randn(3, 40, 40, dtype=torch.float64), (39, 39)).here
    assert layer.place.grid == (10, 10)
    assert np.count_nonzero(layer.maps[0, 0]) == 4
    assert 0.1 < layer.elsewhere.mean() < 0.95
    inside = look(backbone(WindowSpec(4)), torch.randn(3, 40, 40, dtype=torch.float64), (39, 39)).here
    np.testing.assert_allclose(inside.elsewhere, 0, atol=1e-12)


def test_keys_that_are_several_tokens_share_their_weight():
    layer = look(backbone(SpatialReductionSpec(3)), torch.randn(3, 40, 40, dtype=torch.float64)).here
    np.testing.assert_allclose(layer.elsewhere, 0, atol=1e-12)
    np.testing.assert_allclose(layer.maps[..., 0, 0], layer.maps[..., 2, 2])
    assert (layer.maps[..., 2, 2] != layer.maps[..., 3, 3]).all()


def test_attention_inside_entries_is_seen():
    model = vitae(
        (8, 8), (16, 32), (1, 1), (2, 2), cell_heads=(1, 1), groups=(1, 1), cell_groups=(1, 1),
        dilations=((1, 2), (1, 2)), window=3, num_classes=3,
    ).eval()  # fmt: skip
    seen = look(model, PHOTO, stage=1, block="entry", size=64)
    assert [str(layer.layer) for layer in seen.layers] == ["0.entry", "0.0", "1.entry", "1.0"]
    assert [layer.mixer for layer in seen.layers][::2] == ["reduction", "reduction"]
    assert [layer.place.grid for layer in seen.layers] == [(14, 20), (14, 20), (7, 10), (7, 10)]
    assert seen.rectangles.shape == (1, 1, 4)


def test_the_layer_to_show_is_chosen():
    model = backbone(None, FullSpec(), FullSpec(), stages=3)
    assert str(look(model, PHOTO, size=32).chosen) == "1.2"
    assert str(look(model, PHOTO, size=32, stage=-1, block=1).chosen) == "2.1"
    assert str(look(model, PHOTO, size=32, stage=0, block=-2).chosen) == "0.1"
    assert look(model, PHOTO, (np.int64(3), 4), size=32).queries == ((3, 4),)
    seen = look(model, PHOTO, size=32)
    assert str(seen.at(2, 1).layer) == "2.1"
    with pytest.raises(KeyError, match=r"no attention at 2\.0"):
        seen.at(2, 0)


def test_what_there_is_not_is_refused():
    model = backbone(None, FullSpec(), stages=2)
    for given, error, said in (
        (
            {"query": (70, 0)},
            ValueError,
            r"70,0 lies outside of the image: its rows \(first number\) are 0 to 69",
        ),
        ({"query": (0, -1)}, ValueError, "outside of the image"),
        ({"query": [(3, 4, 5)]}, ValueError, "a row and a column"),
        ({"query": []}, ValueError, "names no pixel"),
        ({"stage": 2}, IndexError, "there is no stage 2: the model has stages 0 to 1"),
        ({"stage": 1, "block": 0}, IndexError, "no attention in block 0 of stage 1 of the model; there is in 1"),
        ({"block": "entry"}, IndexError, "no attention in block entry"),
    ):
        with pytest.raises(error, match=said):
            look(model, PHOTO, size=32, **given)
    with pytest.raises(ValueError, match="no attention over a map"):
        look(backbone(None), PHOTO)
    with pytest.raises(TypeError, match="must be a backbone"):
        look(torch.nn.Linear(2, 2), PHOTO)
    with pytest.raises(ValueError, match=r"image must be a tensor \[channels"):
        look(model, torch.zeros(2, 3, 8, 8))


def test_a_look_leaves_the_model_as_it_was():
    model = backbone(FullSpec()).train()
    look(model, PHOTO, size=16)
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else [out]:
            if isinstance(part, torch.Tensor):
                self.numbers = max(self.numbers, part.numel())
        return out


@pytest.mark.parametrize("kind", MIXERS)
def test_memory_is_linear_in_the_tokens(kind):
    """The largest tensor grows as the tokens do, not as their pairs."""
    model = backbone(MIXERS[kind]()).float()
    largest = []
    for side in (160, 320):
        with Largest() as seen:
            look(model, torch.randn(3, side, side))
        largest.append(seen.numbers)
    assert largest[1] <= 4.5 * largest[0]


def test_mixers_are_told_in_words():
    assert told(WindowSpec(shift=3, pad_input=True)) == "window, shift=3, pad_input=True"
    assert told(FullSpec(qkv_bias=False)) == "full, qkv_bias=False"
