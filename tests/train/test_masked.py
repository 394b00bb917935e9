"""Pretraining by masked images: what is hidden, what counts, and that a run goes on to the bit."""

import signal

import pytest
import torch
from torch import nn

from windeye.models.vision import DecoderSpec, MaskedAutoencoder, vit
from windeye.models.vision.masked import patches
from windeye.train import AdamW, Cosine, HiddenPixels, Masked, fit
from windeye.train.masked import visible


def stripes(step, size=(24, 21), batch=8):
    """Rows or columns, at one of two phases: four images, told apart by any patch."""
    random = torch.Generator().manual_seed(step)
    phase = 1.57 * torch.randint(2, (batch, 1, 1, 1), generator=random)
    down, right = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    turned = torch.rand(batch, 1, 1, 1, generator=random) < 0.5
    return torch.where(turned, down, right).mul(0.8).add(phase).sin(), torch.zeros(batch)


def autoencoder():
    torch.manual_seed(3)
    encoder = vit(32, 2, 4, patch=6, in_chans=1, num_classes=0)
    return MaskedAutoencoder(encoder, DecoderSpec(16, 1, 2))


@pytest.mark.parametrize(("count", "share", "seen"), [(64, 0.75, 16), (49, 0.75, 12), (2, 0.99, 1), (5, 0.01, 4)])
def test_so_many_patches_are_seen_once_each_in_order(count, share, seen):
    found = visible(50, count, share, torch.Generator().manual_seed(0))
    assert found.shape == (50, seen)
    assert (found.diff(dim=1) > 0).all()
    assert 0 <= found.min() <= found.max() < count


def test_every_patch_is_seen_as_often_as_any_other():
    found = visible(8000, 16, 0.75, torch.Generator().manual_seed(0))
    shares = found.flatten().bincount(minlength=16) / 8000
    assert (shares - 0.25).abs().max() < 0.02
    together = (found == 3).any(1) & (found == 4).any(1)
    assert together.float().mean().item() == pytest.approx(4 / 16 * 3 / 15, abs=0.01)


def test_step_and_seed_decide_what_is_hidden():
    batches = Masked(stripes, patch=6, seed=1)
    images, seen = batches(7)
    assert torch.equal(images, stripes(7)[0])
    assert torch.equal(seen, batches(7)[1])
    assert seen.shape == (8, 4)  # of 4 x 4, the last column cut off
    assert not torch.equal(seen, batches(8)[1])
    assert not torch.equal(seen, Masked(stripes, patch=6, seed=2)(7)[1])


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("size", [(12, 12), (11, 8)])
def test_the_error_is_what_a_loop_over_hidden_patches_says(normalise, size):
    images = torch.randn(3, 2, *size, dtype=torch.float64)
    columns = -(-size[1] // 6)
    count = -(-size[0] // 6) * columns
    drawn = torch.randn(3, count, 72, dtype=torch.float64)
    seen = visible(3, count, 0.5, torch.Generator().manual_seed(1))
    errors = []
    for image in range(3):
        for patch in set(range(count)) - set(seen[image].tolist()):
            y, x = 6 * (patch // columns), 6 * (patch % columns)
            target = images[image, :, y : y + 6, x : x + 6]
            guess = drawn[image, patch].reshape(6, 6, 2).permute(2, 0, 1)[:, : target.shape[1], : target.shape[2]]
            if normalise:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append((guess - target).square().mean())
    found = HiddenPixels(normalise).error(drawn, images, seen)
    assert torch.allclose(found, torch.stack(errors).mean(), rtol=1e-12)


def test_only_hidden_patches_count():
    images = torch.randn(2, 1, 12, 12)
    drawn = torch.randn(2, 4, 36, requires_grad=True)
    seen = torch.tensor([[0], [2]])
    HiddenPixels().error(drawn, images, seen).backward()
    counted = drawn.grad.abs().sum(-1) > 0
    assert torch.equal(counted, torch.ones(2, 4, dtype=torch.bool).scatter(1, seen, False))


def test_drawing_what_is_there_is_no_error_and_drawing_means_is_one():
    images = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    seen = torch.tensor([[0], [2]])
    assert HiddenPixels(normalise=False).error(patches(images, 6), images, seen) == 0
    blank = torch.zeros(2, 4, 36, dtype=torch.float64)
    assert HiddenPixels().error(blank, images, seen).item() == pytest.approx(35 / 36, rel=1e-4)


def test_a_patch_of_one_colour_is_finite():
    images = torch.ones(1, 1, 12, 7)
    error = HiddenPixels().error(torch.zeros(1, 4, 36), images, torch.tensor([[0]]))
    assert error.item() == pytest.approx(0, abs=1e-6)


def test_what_is_hidden_can_be_drawn_from_what_is_seen():
    rows = fit(
        autoencoder(),
        Masked(lambda step: stripes(step, batch=32), patch=6),
        steps=250,
        objective=HiddenPixels(),
        optimiser=AdamW(rate=3e-3, weight_decay=0.05),
        schedule=Cosine(warm_up=20),
    )
    assert rows[0]["loss"] > 0.9
    assert rows[-1]["loss"] < 0.3


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path):
    batches, objective = Masked(stripes, patch=6), HiddenPixels()
    through = autoencoder()
    expected = fit(through, batches, steps=5, objective=objective)

    def interrupted(step):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return batches(step)

    with pytest.raises(KeyboardInterrupt, match="interrupted after step 3 of 5"):
        fit(autoencoder(), interrupted, steps=5, objective=objective, folder=tmp_path)
    with pytest.raises(ValueError, match="objective HiddenPixels"):
        fit(autoencoder(), batches, steps=5, objective=HiddenPixels(normalise=False), folder=tmp_path)
    second = autoencoder()
    assert fit(second, batches, steps=5, objective=objective, folder=tmp_path) == expected
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), through.parameters(), strict=True))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_hiding_nothing_or_everything_is_refused(share):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\)"):
        Masked(stripes, patch=6, share=share)


def test_one_patch_cannot_be_seen_and_hidden():
    with pytest.raises(ValueError, match="at least 2 patches"):
        Masked(lambda _: (torch.zeros(1, 1, 6, 5), torch.zeros(1)), patch=6)(0)


def test_any_module_that_draws_patches_can_be_trained():
    class Blank(nn.Module):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(1.0))

        def forward(self, images, _):
            return self.level.expand(len(images), 16, 36)

    model = Blank()
    fit(model, Masked(stripes, patch=6), steps=60, objective=HiddenPixels(), optimiser=AdamW(rate=0.1))
    assert abs(model.level.item()) < 0.1
