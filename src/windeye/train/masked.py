"""Pretraining by masked images: which patches are seen in a step, and how far the drawn ones are from the hidden."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from windeye.data.sequences import BatchSource, check_integer, derived_seed
from windeye.models.vision.masked import patches


@dataclass(frozen=True)
class Masked:
    """Batches of images and the numbers of the patches that stay visible, anew for each image of each step.

    Args:
        batches: gives images first, whatever comes second: `windeye.data.sequences.Epochs` of images and labels, say.
        patch: pixels along each side of a patch.
        share: of patches that are hidden; at least one is, and at least one is seen.
        seed: the step and the seed decide.

    Raises:
        ValueError: a share of nothing or of everything, or images of a single patch.

    Example:
        >>> from windeye.models.vision import MaskedAutoencoder, vit
        >>> from windeye.train import HiddenPixels, fit
        >>> def photographs(step):
        ...     images = torch.rand(4, 1, 24, 24, generator=torch.Generator().manual_seed(step))
        ...     return images, torch.zeros(4)
        >>> model = MaskedAutoencoder(vit(16, 1, 2, patch=6, in_chans=1, num_classes=0))
        >>> rows = fit(model, Masked(photographs, patch=6), steps=2, objective=HiddenPixels())
        >>> [row["step"] for row in rows]
        [1, 2]
    """

    batches: BatchSource
    patch: int
    share: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("patch", self.patch, 1)
        check_integer("seed", self.seed)
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share}")

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        images, _ = self.batches(step)
        count = -(-images.shape[2] // self.patch) * -(-images.shape[3] // self.patch)
        generator = torch.Generator().manual_seed(derived_seed("masked", self.seed, step))
        return images, visible(len(images), count, self.share, generator)


def visible(images: int, patches: int, share: float, random: torch.Generator) -> Int64[Tensor, "images seen"]:
    """Numbers of patches that are seen, ascending, every choice of so many equally likely.

    Raises:
        ValueError: fewer than two patches.

    Example:
        >>> visible(2, 8, 0.75, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 2])
    """
    if patches < 2:
        raise ValueError(f"images must have at least 2 patches, one to see and one to hide, got {patches}")
    seen = min(max(1, int(patches * (1 - share))), patches - 1)
    return torch.rand(images, patches, generator=random).argsort(dim=1)[:, :seen].sort(dim=1).values


@dataclass(frozen=True)
class HiddenPixels:
    """The mean over hidden patches of the mean squared error of their pixels: an objective of `windeye.train.fit` for a
    `windeye.models.vision.MaskedAutoencoder` and batches of `Masked`.

    Args:
        normalise: measure pixels in standard deviations of their patch from its mean, as the published recipe does.
            With it 1 is what drawing the mean of every patch would get.
        eps: added to the variance of a patch.
    """

    normalise: bool = True
    eps: float = 1e-6

    def __call__(self, model: nn.Module, images: Tensor, visible: Tensor) -> Tensor:
        return self.error(model(images, visible), images, visible)

    def error(
        self,
        drawn: Float[Tensor, "batch patches pixels"],
        images: Float[Tensor, "batch channels height width"],
        visible: Int64[Tensor, "batch seen"],
    ) -> Float[Tensor, ""]:
        """How far drawn patches are from the hidden ones. Pixels that only fill up a patch at the rim do not count."""
        size = isqrt(drawn.shape[-1] // images.shape[1])
        real = patches(torch.ones_like(images[:1]), size)
        target = patches(images, size)
        if self.normalise:
            target = self.normalised(target, real)
        errors = ((drawn - target).square() * real).sum(dim=-1) / real.sum(dim=-1)
        hidden = torch.ones_like(errors).scatter(1, visible, 0.0)
        return (errors * hidden).sum() / hidden.sum()

    def normalised(
        self, target: Float[Tensor, "batch patches pixels"], real: Float[Tensor, "1 patches pixels"]
    ) -> Float[Tensor, "batch patches pixels"]:
        """Each patch less its mean, over its standard deviation, both of its real pixels."""
        count = real.sum(dim=-1, keepdim=True)
        centred = (target - (target * real).sum(dim=-1, keepdim=True) / count) * real
        variance = centred.square().sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
        return centred / (variance + self.eps).sqrt()
