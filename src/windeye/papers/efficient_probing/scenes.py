"""Scenes: one handwritten digit, enlarged, anywhere on a cut-out of a photograph."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye.data import photograph
from windeye.data.digits import mixed_digits

SIDE, PATCH, GLYPH = 48, 6, 16
"""Pixels along a side of a scene, of a patch, and of a digit."""
Split = Literal["train", "check", "test"]
SCANS: dict[Split, tuple[int, int]] = {"train": (0, 1047), "check": (1047, 1297), "test": (1297, 1797)}
"""Which digits are drawn: to train on, to choose a rate by, and to judge by."""
KEPT = 0.7
"""The share of each photograph, from its left, that scenes are cut from; those of the test are cut from the rest."""
DIM, MEAN, SPREAD = 0.7, 0.35, 0.25
"""Brightness of photographs under digits of 1; what pixels are shifted and scaled by."""
INK = 0.25
"""How bright a pixel of a digit is at least for its patch to count as covered."""


class Scenes(NamedTuple):
    """Images, the digit of each, and the patches that it touches."""

    images: Float[Tensor, "number 1 48 48"]
    digits: Int64[Tensor, " number"]
    covered: Bool[Tensor, "number 64"]


@lru_cache(maxsize=1)
def glyphs() -> tuple[Float[Tensor, "scans 16 16"], Int64[Tensor, " scans"]]:
    """The 1797 scans of scikit-learn, enlarged, from 0 to 1, and what they are, in an order fixed by a seed.

    Raises:
        ImportError: without scikit-learn; names the extra.
    """
    scans, values = mixed_digits()
    large = F.interpolate(scans[:, None], GLYPH, mode="bilinear", align_corners=False)[:, 0]
    return large, values


@lru_cache(maxsize=2)
def photographs(test: bool) -> tuple[Float[Tensor, "height width"], ...]:
    """Three photographs in grey from 0 to 1, each whole and at half its size, cut to its left part or, for the
    test, to its right one.

    Raises:
        ImportError: without scikit-learn or Pillow; names the extra.
    """
    sklearn = _sklearn()
    colours = [photograph(), *(sklearn.load_sample_image(name) for name in ("china.jpg", "flower.jpg"))]
    parts = []
    for colour in colours:
        grey = torch.from_numpy(colour.copy()).float().mean(-1) / 255
        for view in (grey, F.avg_pool2d(grey[None], 2)[0]):
            border = int(KEPT * view.shape[1])
            parts.append(view[:, border:] if test else view[:, :border])
    return tuple(parts)


def scenes(number: int, random: torch.Generator, split: Split = "train") -> Scenes:
    """So many scenes. No digit is in two splits, and no part of a photograph both in the test and elsewhere.

    Example:
        >>> images, digits, covered = scenes(3, torch.Generator().manual_seed(0))
        >>> images.shape, digits.shape, bool((covered.sum(1) >= 4).all())
        (torch.Size([3, 1, 48, 48]), torch.Size([3]), True)
    """
    scans, values = glyphs()
    chosen = torch.randint(*SCANS[split], (number,), generator=random)
    corners = torch.randint(SIDE - GLYPH + 1, (number, 2), generator=random).tolist()
    ink = torch.zeros(number, SIDE, SIDE)
    for scene, (y, x) in enumerate(corners):
        ink[scene, y : y + GLYPH, x : x + GLYPH] = scans[chosen[scene]]
    images = DIM * cut_outs(number, random, test=split == "test") * (1 - ink) + ink
    covered = F.max_pool2d(ink[:, None], PATCH).flatten(1) >= INK
    return Scenes(((images - MEAN) / SPREAD)[:, None], values[chosen], covered)


def cut_outs(number: int, random: torch.Generator, *, test: bool) -> Float[Tensor, "number 48 48"]:
    """Squares of photographs, every second one mirrored."""
    views = photographs(test)
    which = torch.randint(len(views), (number,), generator=random).tolist()
    places = torch.rand(number, 2, generator=random).tolist()
    mirrored = torch.rand(number, generator=random) < 0.5
    cut = torch.empty(number, SIDE, SIDE)
    for scene, (view, place) in enumerate(zip(which, places, strict=True)):
        y, x = (int(share * (side - SIDE + 1)) for share, side in zip(place, views[view].shape, strict=True))
        cut[scene] = views[view][y : y + SIDE, x : x + SIDE]
    return torch.where(mirrored[:, None, None], cut.flip(2), cut)


def _sklearn() -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("scenes need scikit-learn: pip install 'windeye[experiments]'") from error
    return datasets
