"""Labelled pictures in memory: where they are from, and how they are dealt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from windeye.compare.vision.folder import read_folder
from windeye.compare.vision.scenes import made_scenes
from windeye.data import assets
from windeye.data.images import scaling
from windeye.data.sequences import Epochs, Sequences, derived_seed

HELD_OUT = 10
"""Where rates are chosen, one training picture of so many is held out."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures as bytes, and the class of each."""

    images: UInt8[Tensor, "n channels side side"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Images:
    """What networks are trained on and tested with."""

    name: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled

    @property
    def channels(self) -> int:
        """One for grey pictures, three for coloured ones."""
        return self.train.images.shape[1]

    def first(self, count: int) -> Images:
        """The same with the first test pictures alone."""
        return replace(self, test=Labelled(self.test.images[:count], self.test.labels[:count]))

    def pilot(self) -> Images:
        """Training pictures alone, of which a tenth takes the place of the test."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(derived_seed("held out")))
        held = max(1, len(order) // HELD_OUT)
        test, train = (
            Labelled(self.train.images[rows], self.train.labels[rows]) for rows in (order[:held], order[held:])
        )
        return replace(self, train=train, test=test)

    def facts(self) -> dict[str, str | int]:
        """What a report says of them."""
        return {"name": self.name, "classes": len(self.classes), "train": len(self.train), "test": len(self.test)}

    def batches(self, size: int, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """All training pictures again and again, each time in another order; the same for every arm of a seed."""
        dealt = Epochs([Sequences(self.train.images, self.train.labels)], min(size, len(self.train)), seed=seed)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            images, labels = dealt(step)
            return scaled(images), labels

        return batch


def scaled(images: UInt8[Tensor, "n channels side side"]) -> Float[Tensor, "n channels side side"]:
    """As `windeye look` gives them to a model: grey from 0 to 1, colours with ImageNet's mean and deviation.

    Example:
        >>> scaled(torch.full((1, 1, 2, 2), 51, dtype=torch.uint8))[0, 0, 0, 0]
        tensor(0.2000)
    """
    return scaling.scaled(images.float() / 255, "unit" if images.shape[1] == 1 else "imagenet")


def fashion_mnist(side: int) -> Images:
    """Grey pictures of clothing, 28 x 28, filled up with black to ``side``, or made smaller where that is less."""
    files = assets.load("fashion-mnist", progress=False)

    def part(name: str) -> Labelled:
        images = torch.from_numpy(files[f"{name}-images-idx3-ubyte.gz"].copy())[:, None]
        labels = torch.from_numpy(files[f"{name}-labels-idx1-ubyte.gz"].copy()).long()
        return Labelled(_fitted(images, side), labels)

    classes = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
    return Images("fashion-mnist", classes, part("train"), part("t10k"))


def _fitted(images: UInt8[Tensor, "n 1 own own"], side: int) -> UInt8[Tensor, "n 1 side side"]:
    own = images.shape[-1]
    if side < own:
        small = functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
        return small.round().clamp(0, 255).to(torch.uint8)
    before = (side - own) // 2
    after = side - own - before
    return functional.pad(images, (before, after, before, after))


def scenes(side: int) -> Images:
    """A sign in the middle, a shape on either side, and the one that the sign points to: see `made_scenes`."""
    classes, train, test = made_scenes(side)
    return Images("made-scenes", classes, Labelled(*train), Labelled(*test))


def folder(path: Path, side: int) -> Images:
    """Pictures of any sizes in a folder per class: see `read_folder`."""
    classes, train, test = read_folder(path, side)
    return Images(path.name, classes, Labelled(*train), Labelled(*test))


NAMED: dict[str, Callable[[int], Images]] = {"fashion-mnist": fashion_mnist, "made-scenes": scenes}


def check_data(data: str, layout: str = "a folder of images per class") -> None:
    """Refuse what is neither a known name nor a folder, which should hold ``layout``."""
    if data not in NAMED and not Path(data).is_dir():
        raise ValueError(
            f"data must be one of {', '.join(NAMED)}, or a folder with {layout}; there is no folder {data!r}"
        )


def images_of(data: str, side: int) -> Images:
    """The pictures of a name or of a folder, squares of ``side`` pixels.

    Raises:
        ValueError: neither a known name nor a folder, or a folder that does not hold images by class; names the file.
        windeye.data.AssetUnavailable: the pictures are not here and cannot be fetched.
    """
    check_data(data)
    return NAMED[data](side) if data in NAMED else folder(Path(data), side)
