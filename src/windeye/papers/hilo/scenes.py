"""Scenes of handwritten digits: enlarged, scattered, partly covering each other; what digit lies at each token?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from windeye.data import photograph
from windeye.data.digits import divided
from windeye.data.digits import mixed_digits as digits
from windeye.data.sequences import IGNORED

SIDE, PATCH = 48, 4
DIGITS, SIZES = 3, (16, 24)
"""How many in a scene, and how large, in pixels; all lie at multiples of the patch."""
NOISE = 0.1
SQUARE = 64
"""Side of the squares that a photograph is cut into."""


def scenes(
    number: int, random: torch.Generator, *, held_out: bool = False
) -> tuple[Float[Tensor, "number 1 48 48"], Int64[Tensor, "number 12 12"]]:
    """Scenes, and for each token the digit that lies there, or `IGNORED` on the ground.

    Example:
        >>> images, labels = scenes(2, torch.Generator().manual_seed(0))
        >>> images.shape, labels.shape, bool((labels == IGNORED).any())
        (torch.Size([2, 1, 48, 48]), torch.Size([2, 12, 12]), True)
    """
    scans, values = divided(digits())[held_out]
    chosen = torch.randint(len(values), (number, DIGITS), generator=random)
    sizes = torch.tensor(SIZES)[torch.randint(len(SIZES), (number, DIGITS), generator=random)]
    places = torch.rand(number, DIGITS, 2, generator=random)
    images = torch.zeros(number, 1, SIDE, SIDE)
    labels = torch.full((number, SIDE // PATCH, SIDE // PATCH), IGNORED)
    for scene in range(number):
        for scan, size, place in zip(chosen[scene], sizes[scene].tolist(), places[scene].tolist(), strict=True):
            free = (SIDE - size) // PATCH + 1
            y, x = (int(share * free) for share in place)
            large = scans[scan].repeat_interleave(size // 8, 0).repeat_interleave(size // 8, 1)
            images[scene, 0, PATCH * y : PATCH * y + size, PATCH * x : PATCH * x + size] = large
            labels[scene, y : y + size // PATCH, x : x + size // PATCH] = values[scan]
    return images + NOISE * torch.randn(images.shape, generator=random), labels


@lru_cache(maxsize=1)
def photographs() -> Float[Tensor, "crops 1 64 64"]:
    """The photograph that ships with the library in grey from 0 to 1, at two scales, cut into squares."""
    cut = []
    for size in (256, 512):
        bytes_: UInt8[np.ndarray, "h w 3"] = photograph(size=size)
        grey = torch.from_numpy(bytes_).float().mean(-1) / 255
        cut.append(
            grey.reshape(size // SQUARE, SQUARE, size // SQUARE, SQUARE).transpose(1, 2).reshape(-1, 1, SQUARE, SQUARE)
        )
    return torch.cat(cut)
