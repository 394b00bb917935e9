"""Large digits drawn with copies of a small digit: what is the large one, what is the small one?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye.data.digits import divided
from windeye.data.digits import mixed_digits as digits

GLYPH, SIDE, PATCH = 8, 48, 4
"""Sides of a scan, of a scene, which is as large as the large digit, and of a token, in pixels."""
INK = 0.4
"""From what brightness on the large digit is drawn."""
NOISE = 0.1


def stencil(scans: Float[Tensor, "number 8 8"]) -> Bool[Tensor, "number 48 48"]:
    """Where scans that are made as large as the large digit have ink.

    Example:
        >>> stencil(torch.ones(1, 8, 8)).all()
        tensor(True)
    """
    return F.interpolate(scans[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0] > INK


def scenes(
    number: int, random: torch.Generator, *, held_out: bool = False
) -> tuple[Float[Tensor, "number 1 48 48"], Int64[Tensor, "number 2"]]:
    """Scenes, and the classes of the large and of the small digit, which are drawn independently.

    Example:
        >>> images, labels = scenes(2, torch.Generator().manual_seed(0))
        >>> images.shape, labels.shape
        (torch.Size([2, 1, 48, 48]), torch.Size([2, 2]))
    """
    scans, values = divided(digits())[held_out]
    chosen = torch.randint(len(values), (number, 2), generator=random)
    tiles = scans[chosen[:, 1]].repeat(1, SIDE // GLYPH, SIDE // GLYPH)
    images = (stencil(scans[chosen[:, 0]]) * tiles)[:, None]
    return images + NOISE * torch.randn(images.shape, generator=random), values[chosen]
