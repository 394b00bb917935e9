"""Photographs that ship with windeye, so that demos and examples run without a network."""

from __future__ import annotations

from importlib import resources

import numpy as np
from jaxtyping import UInt8

# Origin and licence of each: photographs/README.md.
PHOTOGRAPHS = ("astronaut",)


def photograph(
    name: str = "astronaut", size: int | tuple[int, int] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """A public-domain photograph as red, green, blue bytes.

    Args:
        name: one of `PHOTOGRAPHS`.
        size: height and width to resize to (an integer means a square); None keeps the 512 x 512 of the file.

    Raises:
        ValueError: unknown name, or a size below 1.
        ImportError: Pillow is missing (`pip install 'windeye[vision]'`).

    >>> photograph(size=(48, 64)).shape
    (48, 64, 3)
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name must be one of {PHOTOGRAPHS}, got {name!r}")
    height, width = (size, size) if isinstance(size, int) else size or (512, 512)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 along both axes, got {size}")
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("photograph needs Pillow: pip install 'windeye[vision]'") from error
    with resources.files("windeye.data").joinpath("photographs", f"{name}.jpg").open("rb") as file:
        image = Image.open(file).convert("RGB")
        if size is not None:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(image).copy()
