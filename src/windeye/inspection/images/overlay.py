"""Weights over a photograph, as pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from windeye.inspection.images.photo import Photo
from windeye.inspection.images.placement import Placement

MOST_PIXELS = 640
"""Longer side of a photograph in a figure; more would only make pages heavy."""
DIM = 0.45
"""How bright the photograph is where there is no weight."""


def palette() -> UInt8[np.ndarray, "256 red_green_blue"]:
    """Colours from no weight to the heaviest."""
    from matplotlib import colormaps

    return (colormaps["inferno"](np.linspace(0.2, 0.95, 256))[:, :3] * 255).round().astype(np.uint8)


def thumbnail(photo: Photo) -> Float[np.ndarray, "tall wide 3"]:
    """Means of blocks of pixels, so that the longer side is at most ``MOST_PIXELS``."""
    pixels = photo.pixels
    for axis in (0, 1):
        step = -(-max(photo.size) // MOST_PIXELS)
        starts = np.arange(0, pixels.shape[axis], step)
        counts = np.diff([*starts, pixels.shape[axis]])
        sums = np.add.reduceat(pixels, starts, axis=axis)
        pixels = sums / counts.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return pixels


def overlay(
    photo: Photo, place: Placement, weights: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "tall wide 3"]:
    """The photograph without colours, dimmed where there is no weight; where there is, in the colour of the weight
    relative to the heaviest, lighter and darker as the photograph is.

    Example:
        >>> photo = Photo("white", np.ones((4, 6, 3), dtype=np.float32))
        >>> place = Placement.of((1, 2), 4, (4, 6), (4, 6))
        >>> overlay(photo, place, np.array([[0.0, 1.0]]))[0, [0, 5]].round(2).tolist()
        [[0.45, 0.45, 0.45], [0.95, 0.94, 0.46]]
    """
    grey = thumbnail(photo).mean(axis=2)
    down, across = (
        np.clip(np.searchsorted(borders, (np.arange(count) + 0.5) * whole / count, side="right") - 1, 0, tokens - 1)
        for borders, count, whole, tokens in zip(
            (place.rows, place.columns), grey.shape, photo.size, weights.shape, strict=True
        )
    )
    share = (weights / max(float(weights.max()), 1e-300))[down[:, None], across]
    colour = palette()[(share * 255).round().astype(int)] / 255
    cover, light = np.sqrt(share)[..., None], grey[..., None]
    return (1 - cover) * DIM * light + cover * colour * (0.3 + 0.7 * light)
