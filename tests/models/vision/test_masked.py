"""Masked autoencoders: the encoder never sees what is hidden, the decoder knows where everything stands."""

import pytest
import torch

from windeye.models.vision import DecoderSpec, MaskedAutoencoder, vit
from windeye.models.vision.masked import patches
from windeye.tokens import waves

SIZES = [(12, 20), (11, 17), (9, 9)]


def small(**settings):
    encoder = vit(16, 2, 4, patch=4, in_chans=2, num_classes=0, **settings)
    return MaskedAutoencoder(encoder, DecoderSpec(8, 1, 2)).double().eval()


def case(size, seen=3, batch=2):
    images = torch.randn(batch, 2, *size, dtype=torch.float64)
    count = -(-size[0] // 4) * -(-size[1] // 4)
    return images, torch.stack([torch.randperm(count)[:seen] for _ in range(batch)]), count


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("class_token", [True, False])
def test_nothing_that_is_drawn_depends_on_hidden_pixels(size, class_token):
    model = small(class_token=class_token)
    images, visible, count = case(size)
    images.requires_grad_()
    drawn = model(images, visible)
    assert drawn.shape == (2, count, 32)
    drawn.square().sum().backward()
    touched = patches(images.grad.abs(), 4).sum(-1) > 0
    assert torch.equal(touched, torch.zeros(2, count, dtype=torch.bool).scatter(1, visible, True))


def test_the_order_in_which_patches_are_seen_does_not_matter():
    model = small()
    images, visible, _ = case((12, 20), seen=6)
    assert torch.allclose(model(images, visible.flip(1)), model(images, visible), rtol=1e-10, atol=1e-11)


def test_each_place_is_drawn_from_its_own_position():
    """Hidden places differ in nothing but where they are."""
    model = small()
    images, visible, _ = case((12, 20))
    drawn = model(images, visible)[0]
    hidden = [patch for patch in range(15) if patch not in visible[0].tolist()]
    assert min((drawn[a] - drawn[b]).abs().max() for a in hidden for b in hidden if a < b) > 1e-6


def test_images_are_independent():
    model = small()
    images, visible, _ = case((12, 20))
    assert torch.allclose(model(images, visible)[1:], model(images[1:], visible[1:]), rtol=1e-10, atol=1e-11)


def test_every_parameter_learns():
    model = small()
    images, visible, _ = case((12, 20))
    model(images, visible).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_patches_are_squares_of_pixels_and_zeros_at_the_rim(size):
    images, _, count = case(size)
    found = patches(images, 4)
    columns = -(-size[1] // 4)
    for patch in range(count):
        y, x = 4 * (patch // columns), 4 * (patch % columns)
        square = torch.zeros(2, 4, 4, 2, dtype=torch.float64)
        real = images[:, :, y : y + 4, x : x + 4].permute(0, 2, 3, 1)
        square[:, : real.shape[1], : real.shape[2]] = real
        assert torch.equal(found[:, patch], square.flatten(1))


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (8, 8)])
def test_waves_are_what_their_formula_says(grid):
    dim = 12
    found = waves(*grid, dim, like=torch.empty(0, dtype=torch.float64))
    for y in range(grid[0]):
        for x in range(grid[1]):
            for i in range(3):
                speed = torch.tensor(10000.0, dtype=torch.float64) ** (-4 * i / dim)
                told = found[y, x, [i, 3 + i, 6 + i, 9 + i]]
                expected = [(x * speed).sin(), (x * speed).cos(), (y * speed).sin(), (y * speed).cos()]
                assert torch.allclose(told, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_a_width_that_no_waves_fit_is_named():
    with pytest.raises(ValueError, match=r"dim must be a multiple of 4 .*, got 6"):
        waves(2, 2, 6, like=torch.empty(0))
