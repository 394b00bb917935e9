"""Any image file, upright, as red, green and blue between 0 and 1."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from PIL.Image import Image

TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")


def pillow() -> Any:
    """Pillow's module of images.

    Raises:
        ImportError: it is missing; names the extra.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'windeye[vision]'") from error
    return Image


def opened(path: Path) -> Image:
    """The image in a file, of several frames the first, turned as the camera noted.

    Raises:
        ValueError: it is no image; names it.
        ImportError: Pillow is missing.
    """
    images = pillow()
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", images.DecompressionBombWarning)
            with images.open(path) as file:
                return upright(file)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that Pillow can read") from None
    except (OSError, SyntaxError, images.DecompressionBombError) as error:
        raise ValueError(f"{path} is an image that cannot be read: {error}") from error


def upright(image: Image) -> Image:
    """Turned as the camera noted, in memory."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def pixels_of(image: Image) -> Float[np.ndarray, "height width 3"]:
    """Colours between 0 and 1. What is transparent becomes white, 16 bits are read in full, grey is three equal
    colours.

    Example:
        >>> from PIL import Image
        >>> pixels_of(Image.new("LA", (1, 1), (0, 0)))[0, 0].tolist()
        [1.0, 1.0, 1.0]
    """
    if image.mode.startswith("I;16"):
        return grey(np.asarray(image).astype(np.float32) / 65535)
    if image.mode in ("I", "F"):  # whole numbers of files with 16 bits, or of no known range
        values = np.nan_to_num(np.asarray(image).astype(np.float32))
        low = min(float(values.min()), 0.0)
        high = max(float(values.max()), 65535.0 if image.mode == "I" else low + 1.0)
        return grey((values - low) / (high - low))
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return on_white(np.asarray(image.convert("RGBA")).astype(np.float32) / 255)
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def eight_bits(image: Image) -> Image:
    """The same colours, with 8 bits each.

    Example:
        >>> from PIL import Image
        >>> eight_bits(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode in ("I", "F", *TRANSPARENT) or image.mode.startswith("I;16") or "transparency" in image.info:
        return pillow().fromarray((255 * pixels_of(image)).round().astype(np.uint8))
    return image.convert("RGB")


def on_white(pixels: Float[np.ndarray, "height width 4"]) -> Float[np.ndarray, "height width 3"]:
    """Colours and opacity, on white."""
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)


def grey(values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width 3"]:
    """As three equal colours."""
    return np.repeat(values[..., None], 3, axis=2)
