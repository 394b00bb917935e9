"""From an image file to the square that a network sees: the middle to test with, a random part to train on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from windeye.data.images.opening import eight_bits, opened, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

SHARE = 224 / 256
"""Side of the middle, as a share of the shorter side of the image."""
AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of random parts: shares of the image's area, and width over height."""


def middle(path: Path, side: int) -> UInt8[Tensor, "3 side side"]:
    """The middle of an image, ``side`` pixels wide: its shorter side is resized (bicubic) to 8/7 of that, as 256 is of
    224.

    Raises:
        ValueError: the file is no image; names it. ImportError: Pillow is missing.
    """
    image = eight_bits(opened(path))
    short = min(image.size) * SHARE
    left, top = ((length - short) / 2 for length in image.size)
    return _cut(image, (left, top, left + short, top + short), side)


def random_part(path: Path, side: int, generator: torch.Generator) -> UInt8[Tensor, "3 side side"]:
    """A random part of an image, ``side`` pixels wide (bicubic), turned left to right half of the times.

    Area and ratio are drawn once, and a part that would stand out is cut off at the border (the sampling of masked
    autoencoders' probes; drawing again until a part fits has other shares).

    Raises:
        ValueError: the file is no image; names it. ImportError: Pillow is missing.
    """
    image = eight_bits(opened(path))
    width, height = image.size
    draws = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    area = width * height * (AREAS[0] + (AREAS[1] - AREAS[0]) * draws[0])
    ratio = math.exp(math.log(RATIOS[0]) + math.log(RATIOS[1] / RATIOS[0]) * draws[1])
    wide, high = min(width, max(1, round(math.sqrt(area * ratio)))), min(height, max(1, round(math.sqrt(area / ratio))))
    left, top = math.floor(draws[2] * (width - wide + 1)), math.floor(draws[3] * (height - high + 1))
    cut = _cut(image, (left, top, left + wide, top + high), side)
    return cut.flip(2) if draws[4] < 0.5 else cut


def _cut(image: Image, box: tuple[float, float, float, float], side: int) -> UInt8[Tensor, "3 side side"]:
    part = image.resize((side, side), pillow().Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(part)).permute(2, 0, 1)
