"""Images as a model sees them and as a person does: any file, upright, as red, green and blue between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.data import PHOTOGRAPHS, photograph
from windeye.data.images.opening import grey, on_white, opened, pillow, pixels_of, upright
from windeye.data.images.scaling import SCALINGS, Colours, scaled

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright picture and what it is called. Its pixels are what queries and everything that is told count in."""

    name: str
    pixels: Float[np.ndarray, "height width 3"]
    """Between 0 and 1."""

    @property
    def size(self) -> Pair:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_photo(source: Any) -> Photo:
    """A picture from a file, the name of a photograph that ships with windeye, a Pillow image, or an array.

    The rotation that a camera noted is carried out, what is transparent becomes white, 16 bits are read in full, grey
    is three equal colours, of several frames the first is taken. Arrays are [height, width] or [height, width, 1, 3 or
    4 channels], whole numbers by the range of their type, others between 0 and 1.

    Raises:
        ValueError: nothing of that name is there, or it is no image; says what would do.
        ImportError: Pillow is missing (`pip install 'windeye[vision]'`).

    Example:
        >>> read_photo("astronaut").size, read_photo(np.zeros((4, 6), dtype=np.uint8)).pixels.shape
        ((512, 512), (4, 6, 3))
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        return Photo("array", _of_array(source))
    if isinstance(source, pillow().Image):
        return Photo("image", pixels_of(upright(source)))
    if not isinstance(source, str | Path):
        raise TypeError(f"image must be a file, a name, a Pillow image or an array, got {type(source).__name__}")
    path = Path(source)
    if str(source) in PHOTOGRAPHS and not path.exists():
        return Photo(str(source), photograph(str(source)).astype(np.float32) / 255)
    if not path.is_file():
        raise ValueError(f"there is no image file {path}; photographs at hand are {', '.join(PHOTOGRAPHS)}")
    return Photo(path.name, pixels_of(opened(path)))


def model_size(
    photo: Pair, size: int | Pair | Literal["own"] | None, made_for: Pair, patch: int = 1, *, resizes: bool = True
) -> Pair:
    """Height and width at which a model sees a photograph.

    Args:
        photo: height and width of the photograph.
        size: both, stretched; or an integer: as many pixels as a square of that side, in the photograph's proportions;
            or "own", the photograph's own. None is as many pixels as the model was made for.
        made_for: height and width that the model was made for.
        patch: sides are rounded to multiples of it.
        resizes: whether the model takes other sizes; if not, the photograph is stretched to the one that it takes.

    Raises:
        ValueError: a size below 1, or one that the model does not take.

    Example:
        >>> model_size((480, 640), None, (224, 224)), model_size((480, 640), (96, 100), (224, 224))
        ((194, 259), (96, 100))
    """
    if not resizes:
        if size is not None and size not in (made_for, made_for[0]):
            raise ValueError(f"size must be {made_for[0]} x {made_for[1]}, the model takes no other, got {size}")
        return made_for
    if size == "own":
        found = photo
    elif isinstance(size, tuple):
        found = size
    else:
        area = made_for[0] * made_for[1] if size is None else size * size
        share = (area / (photo[0] * photo[1])) ** 0.5 if size is None or size > 0 else 0.0
        found = (max(round(photo[0] * share), share > 0), max(round(photo[1] * share), share > 0))
    if min(found) < 1:
        raise ValueError(f"size must be at least 1 along both axes, got {size}")
    return max(1, round(found[0] / patch)) * patch, max(1, round(found[1] / patch)) * patch


def as_input(
    photo: Photo, size: Pair, channels: int, scaling: str | Colours | None = None
) -> Float[Tensor, "1 channels height width"]:
    """What a model is given: resampled with low-pass, in its number of channels, scaled.

    Args:
        channels: 3, or 1 for the mean of the colours.
        scaling: one of `SCALINGS`, or mean and deviation themselves. None is "imagenet" for three channels and "unit"
            for one.

    Raises:
        ValueError: another number of channels, an unknown scaling.
    """
    if channels not in (1, 3):
        raise ValueError(f"the model takes {channels} channels, an image has 1 or 3; give a tensor [channels, h, w]")
    scaling = scaling or ("imagenet" if channels == 3 else "unit")
    if isinstance(scaling, str) and scaling not in SCALINGS:
        raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, got {scaling!r}")
    x = torch.from_numpy(np.ascontiguousarray(photo.pixels)).permute(2, 0, 1)[None]
    if size != photo.size:
        x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    x = scaled(x, scaling)
    return x if channels == 3 else x.mean(dim=1, keepdim=True)


def shown(x: Float[Tensor, "channels height width"]) -> Photo:
    """A model's input as a picture: colours where it has three channels, else the mean; stretched to 0 to 1."""
    x = x.detach().float().cpu()
    x = x if x.shape[0] == 3 else x.mean(dim=0, keepdim=True).expand(3, -1, -1)
    low, high = x.min(), x.max()
    return Photo("tensor", ((x - low) / (high - low).clamp(min=1e-12)).permute(1, 2, 0).numpy())


def _of_array(values: Any) -> Float[np.ndarray, "height width 3"]:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(f"an array must be [height, width] or [height, width, 1, 3 or 4], got shape {values.shape}")
    if values.dtype == np.bool_:
        pixels = values.astype(np.float32)
    elif np.issubdtype(values.dtype, np.integer):
        pixels = values.astype(np.float32) / np.iinfo(values.dtype).max
    else:
        pixels = values.astype(np.float32)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("an array of fractions must lie between 0 and 1")
    return on_white(pixels) if pixels.shape[2] == 4 else grey(pixels[..., 0]) if pixels.shape[2] == 1 else pixels
