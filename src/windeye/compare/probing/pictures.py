"""Labelled images, from memory or from files, as batches of what an encoder takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from windeye.compare.vision.images import NAMED, check_data, images_of
from windeye.data.images import Files, ImageFolder, middle, random_part
from windeye.data.images import scaling as colours
from windeye.data.sequences import derived_seed

Scaling = Literal["imagenet", "unit", "symmetric"]
SMALL = 28
"""Side of the squares of named data, unless another one is asked for."""
LAYOUT = "train/CLASS/* and val/CLASS/*"
"""What a folder holds."""
READERS = 8
"""Files that are read at once."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images by number."""

    labels: Int64[Tensor, " n"]
    read: Callable[[list[int], int | None], UInt8[Tensor, "batch channels side side"]]
    """Images of these numbers: middles, or random parts of a seed."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, most: int | None, seed: int) -> Pictures:
        """So many of them at most, drawn by a seed."""
        if most is None or most >= len(self):
            return self
        generator = torch.Generator().manual_seed(derived_seed("probe images", seed))
        rows = torch.randperm(len(self), generator=generator)[:most].tolist()
        return Pictures(self.labels[rows], lambda numbers, seed: self.read([rows[n] for n in numbers], seed))


@dataclass(frozen=True, eq=False)
class Sets:
    """What heads are trained on and tested with."""

    classes: tuple[str, ...]
    channels: int
    train: Pictures
    test: Pictures


def sets_of(data: str, side: int) -> Sets:
    """The images of a name or of a folder.

    Raises:
        ValueError: neither a known name nor a folder, or a folder without images by class; names it.
        windeye.data.AssetUnavailable: the images are not here and cannot be fetched.
    """
    check_data(data, LAYOUT)
    if data in NAMED:
        found = images_of(data, side)
        parts = (_in_memory(part.images, part.labels) for part in (found.train, found.test))
        return Sets(found.classes, found.channels, *parts)
    folder = ImageFolder.of(data)
    return Sets(folder.classes, 3, _from_files(folder.train, side), _from_files(folder.test, side))


def _in_memory(images: UInt8[Tensor, "n channels side side"], labels: Int64[Tensor, " n"]) -> Pictures:
    return Pictures(labels, lambda numbers, _seed: images[numbers])


def _from_files(files: Files, side: int) -> Pictures:
    def read(numbers: list[int], seed: int | None) -> Tensor:
        def one(number: int) -> Tensor:
            if seed is None:
                return middle(files.paths[number], side)
            generator = torch.Generator().manual_seed(derived_seed("random part", seed, number))
            return random_part(files.paths[number], side, generator)

        with ThreadPoolExecutor(READERS) as readers:  # Pillow lets go of the interpreter while it decodes
            return torch.stack(list(readers.map(one, numbers)))

    return Pictures(files.labels, read)


def scaled(
    images: UInt8[Tensor, "batch own side side"], channels: int, scaling: Scaling
) -> Float[Tensor, "batch channels side side"]:
    """Pixels as a model takes them; grey ones as often as it has channels.

    Raises:
        ValueError: colours for a model of another number of channels.

    Example:
        >>> scaled(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), 3, "symmetric")[0, :, 0, 0]
        tensor([1., 1., 1.])
    """
    x = images.float() / 255
    if x.shape[1] not in (1, channels):
        raise ValueError(f"the model takes {channels} channels, images have {x.shape[1]}")
    x = x.expand(-1, channels, -1, -1)
    if scaling == "imagenet" and channels != 3:
        raise ValueError(
            f"imagenet scaling is of 3 channels, the model takes {channels}; unit and symmetric are of any"
        )
    return colours.scaled(x, scaling)
