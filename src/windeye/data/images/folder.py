"""Folders of images, a folder for each class, read one by one: nothing of the size of the set is ever in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from windeye.data.sequences import derived_seed

TRAIN, TEST = ("train",), ("val", "valid", "validation", "test")
"""Names of the folders of what is trained on and of what is tested with."""
HELD_OUT = 5
"""Without such folders one of so many images of each class is tested with."""


@dataclass(frozen=True, eq=False)
class Files:
    """Images by path, and the class of each."""

    paths: tuple[Path, ...]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images to train on and to test with."""

    path: Path
    classes: tuple[str, ...]
    train: Files
    test: Files

    @classmethod
    def of(cls, path: str | Path) -> ImageFolder:
        """A folder with ``train/CLASS/*`` and ``val/CLASS/*``, as ImageNet lies on disks.

        Raises:
            ValueError: a part is missing or has no images, or the parts have other classes; names the folder.
        """
        path = Path(path)
        train, test = (_part(path, names) for names in (TRAIN, TEST))
        different = train.keys() ^ test.keys()
        if different:
            raise ValueError(
                f"train and test of {path} must have the same classes; only one of them has {min(different)!r}"
            )
        if len(train) < 2:
            raise ValueError(f"{path} must have images of at least two classes, got {len(train)}")
        return cls(path, tuple(train), _files(train), _files(test))

    @classmethod
    def divided(cls, path: str | Path) -> ImageFolder:
        """A folder with ``CLASS/*``: a fifth of each class, at least one image, is tested with, drawn by the names of
        files alone.

        Raises:
            ValueError: fewer than two classes, or a class with fewer than two images; names it.
        """
        path = Path(path)
        found = _classes(path)
        if len(found) < 2:
            raise ValueError(f"{path} must have a folder of images for each of at least two classes, got {len(found)}")
        train, test = {}, {}
        for name, files in found.items():
            if len(files) < 2:
                raise ValueError(
                    f"class {name!r} must have at least two images, one of them to test with, got {files[0]}"
                )
            drawn = sorted(files, key=lambda file: derived_seed("held out", file.name))
            held_out = set(drawn[: max(1, len(files) // HELD_OUT)])
            train[name] = [file for file in files if file not in held_out]
            test[name] = [file for file in files if file in held_out]
        return cls(path, tuple(found), _files(train), _files(test))

    @classmethod
    def at(cls, path: str | Path) -> ImageFolder:
        """`of` where there is a folder for training or testing, else `divided`."""
        parts = any((Path(path) / name).is_dir() for name in (*TRAIN, *TEST))
        return cls.of(path) if parts else cls.divided(path)


def _part(path: Path, names: tuple[str, ...]) -> dict[str, list[Path]]:
    folder = next((path / name for name in names if (path / name).is_dir()), None)
    if folder is None:
        raise ValueError(f"{path} must have a folder {' or '.join(names)} with a folder of images for each class")
    found = _classes(folder)
    if not found:
        raise ValueError(f"{folder} must have a folder of images for each class, got none")
    return found


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    found = {place.name: sorted(file for file in place.rglob("*") if _is_image(file)) for place in classes}
    for name, files in found.items():
        if not files:
            raise ValueError(f"{folder / name} holds no images")
    return found


def _is_image(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _files(found: dict[str, list[Path]]) -> Files:
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    return Files(tuple(file for files in found.values() for file in files), torch.tensor(labels))
