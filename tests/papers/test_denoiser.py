"""The network that window methods are put into: its parts, its training, and its replaceable attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import windeye
from windeye.papers import denoiser
from windeye.papers.denoiser import GRID, HEAD_DIM, HEADS, Denoiser

SHAPE = (2, GRID, GRID, HEADS, HEAD_DIM)


@pytest.fixture(scope="module")
def shipped() -> denoiser.Photographs:
    return denoiser.photographs(only_shipped=True)


def awake(seed: int = 0) -> Denoiser:
    """A network whose zero-initialised gates and head are open, as after training."""
    torch.manual_seed(seed)
    model = Denoiser(sources=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


def example(model: Denoiser, attention: denoiser.Attention = denoiser.dense) -> torch.Tensor:
    torch.manual_seed(1)
    noisy, time, source = torch.randn(2, 3, 32, 32), torch.tensor([0.2, 0.9]), torch.tensor([0, 1])
    with torch.no_grad():
        return model(noisy, time, source, attention)


def test_patches_are_two_by_two_pixels_and_go_back() -> None:
    images = torch.randn(2, 3, 32, 32)
    tokens = denoiser.patches(images)
    assert torch.equal(tokens[1, 3, 5], images[1, :, 6:8, 10:12].flatten())
    assert torch.equal(denoiser.pixels(tokens), images)


def test_dense_attention_is_softmax_over_everything() -> None:
    query, key, value = torch.randn(3, *SHAPE, dtype=torch.float64).unbind(0)
    flat_query, flat_key, flat_value = (t.flatten(1, 2) for t in (query, key, value))
    weights = (torch.einsum("bqhd,bkhd->bhqk", flat_query, flat_key) * HEAD_DIM**-0.5).softmax(dim=-1)
    truth = torch.einsum("bhqk,bkhd->bqhd", weights, flat_value).reshape(query.shape)
    assert torch.allclose(denoiser.dense(query, key, value), truth, atol=1e-12)
    assert torch.allclose(windeye.attend(query, key, value), truth, atol=1e-12)


def test_a_masked_query_sees_exactly_its_row() -> None:
    query, key, value = torch.randn(3, *SHAPE).unbind(0)
    only = torch.zeros(GRID**2, GRID**2, dtype=torch.bool)
    only[:, 37] = True
    out = denoiser.masked(only)(query, key, value)
    assert torch.allclose(out, value[:, 2:3, 5:6].expand(SHAPE), atol=1e-6)


def test_rotary_products_depend_on_the_offset_alone() -> None:
    first, second = torch.randn(2, HEAD_DIM, dtype=torch.float64)
    query = denoiser.rotate(first.expand(1, GRID, GRID, HEADS, HEAD_DIM))[0, :, :, 0]
    key = denoiser.rotate(second.expand(1, GRID, GRID, HEADS, HEAD_DIM))[0, :, :, 0]
    product = query[3, 4] @ key[5, 9]
    assert torch.allclose(query[6, 1] @ key[8, 6], product)
    for other in ((5, 8), (6, 9), (9, 5)):
        assert not torch.allclose(query[3, 4] @ key[other], product)
    assert torch.allclose(query.norm(dim=-1), first.norm().expand(GRID, GRID))


def test_a_window_of_the_whole_grid_is_dense_and_a_smaller_one_is_not() -> None:
    model = awake()
    truth = example(model)

    def windows(size: int) -> denoiser.Attention:
        return lambda q, k, v: windeye.attend(q, k, v, windeye.Neighborhood(size))

    assert torch.allclose(example(model, windows(GRID)), truth, atol=1e-5)
    assert (example(model, windows(8)) - truth).abs().max() > 1e-3


def test_attention_is_replaced_in_every_layer() -> None:
    calls = []

    def count(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        calls.append(query.shape)
        return denoiser.dense(query, key, value)

    example(awake(), count)
    assert calls == [SHAPE] * denoiser.LAYERS


@pytest.mark.parametrize("which", ["time", "source", "noisy"])
def test_every_input_matters(which: str) -> None:
    model = awake()
    noisy, time, source = torch.randn(1, 3, 32, 32), torch.tensor([0.3]), torch.tensor([0])
    given = {"noisy": noisy, "time": time, "source": source}
    other = {"noisy": noisy + 1, "time": time + 0.1, "source": source + 1}
    with torch.no_grad():
        assert not torch.allclose(model(**given), model(**(given | {which: other[which]})), atol=1e-4)


def test_a_fresh_network_predicts_zero() -> None:
    assert not example(Denoiser(sources=2)).any()


def test_photographs_are_shortened_and_cut_without_overlap() -> None:
    pixels = np.zeros((512, 1024, 3), dtype=np.uint8)
    pixels[:, 612:] = 255
    found = denoiser.split([pixels])
    assert found.train[0].shape == (3, 256, 307)
    assert found.held_out[0].shape == (3, 256, 512 - 307)
    assert found.train[0][:, :, :300].max() == -1
    assert found.held_out[0].min() > 0.9


def test_the_shipped_photograph_is_enough(shipped: denoiser.Photographs) -> None:
    assert len(shipped) == 1
    assert shipped.train[0].shape == (3, 256, 153)
    assert -1 <= shipped.train[0].min() < shipped.train[0].max() <= 1


def test_photographs_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from windeye.data import AssetUnavailable
    from windeye.data.assets import store

    def nothing(*_: object) -> object:
        return iter(())

    monkeypatch.setenv("WINDEYE_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "_plan", nothing)
    with pytest.raises(AssetUnavailable, match="china-and-flower"):
        denoiser.photographs()


def test_the_manifest_knows_every_photograph() -> None:
    from windeye.data.assets import find

    assert [find(name).loader for name in denoiser.ASSETS] == ["image"] * len(denoiser.ASSETS)
    assert sum(len(find(name).files) for name in denoiser.ASSETS) == 10


def test_crops_are_cut_from_the_image_they_name() -> None:
    flat = tuple(torch.full((3, 40, 50), float(number)) for number in range(3))
    clean, source = denoiser.crops(flat, 20, torch.Generator().manual_seed(0))
    assert torch.equal(clean, source[:, None, None, None].expand(20, 3, 32, 32).float())
    assert set(source.tolist()) == {0, 1, 2}


def test_crops_reach_every_edge() -> None:
    ramp = torch.arange(34.0).expand(3, 33, 34)
    clean, _ = denoiser.crops((ramp,), 60, torch.Generator().manual_seed(0))
    assert clean.min() == 0
    assert clean.max() == 33


def test_errors_are_those_of_the_velocity() -> None:
    """A fresh network predicts zero, so its error is the velocity itself."""
    clean, noise = torch.randn(2, 3, 3, 32, 32).unbind(0)
    found = denoiser.errors(Denoiser(1), clean, noise, torch.rand(3), torch.zeros(3, dtype=torch.long))
    assert found.shape == (3, GRID, GRID)
    assert torch.allclose(found.mean(), (noise - clean).square().mean())
    assert torch.allclose(found[1, 2, 3], (noise - clean)[1, :, 4:6, 6:8].square().mean())


def test_training_repeats_itself_and_learns(shipped: denoiser.Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "BATCH", 4)
    told: list[float] = []
    first, losses = denoiser.train(shipped, 12, 3, "cpu", told.append)
    second, again = denoiser.train(shipped, 12, 3, "cpu", lambda _: None)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert told[-1] == 1.0
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert not first.training


def test_training_leaves_the_callers_random_numbers_alone(shipped: denoiser.Photographs) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    denoiser.train(shipped, 1, 0, "cpu", lambda _: None)
    assert torch.equal(torch.rand(3), expected)
