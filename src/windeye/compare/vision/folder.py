"""Pictures of any sizes in a folder per class."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional

from windeye.data.sequences import derived_seed

PARTS = (("train",), ("val", "valid", "validation", "test"))
"""Names of folders that divide what is trained on from what is tested with."""
HELD_OUT = 5
"""Without them one of so many pictures of each class is tested with."""

Part = tuple[UInt8[Tensor, "n 3 side side"], Int64[Tensor, " n"]]


def read_folder(path: Path, side: int) -> tuple[tuple[str, ...], Part, Part]:
    """Classes, what is trained on and what is tested with: each picture upright, its shorter side made ``side`` long,
    and the middle cut out.

    Either ``path/train/CLASS/*`` and ``path/val/CLASS/*``, or ``path/CLASS/*``, where a fifth of each class, at least
    one picture, is held out by a draw that depends on names alone. Files whose names begin with a dot are passed over.

    Raises:
        ValueError: fewer than two classes, a class without enough pictures, a class that is only in one part, a file
            that is no image; names it.
        ImportError: Pillow is missing.
    """
    train, test = (next((path / name for name in names if (path / name).is_dir()), None) for names in PARTS)
    if (train is None) != (test is None):
        have, lacks = ("train", "val") if test is None else ((test or path).name, "train")
        raise ValueError(f"{path} has a folder {have} but no folder {lacks}")
    if train is not None and test is not None:
        first, second = _by_class(train), _by_class(test)
        if different := first.keys() ^ second.keys():
            raise ValueError(f"{train} and {test} must have the same classes; only one of them has {min(different)!r}")
    else:
        first, second = _divided(_by_class(path))
    return tuple(first), _read(first, side), _read(second, side)


def listed(path: Path) -> list[tuple[str, int, int]]:
    """Every file below a folder with its size and time: what tells one state of it from another."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _by_class(path: Path) -> dict[str, list[Path]]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{path} must hold a folder of images for each of at least two classes, got {len(folders)}")
    found = {
        folder.name: sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        for folder in folders
    }
    for name, files in found.items():
        if not files:
            raise ValueError(f"{path / name} holds no images")
    return found


def _divided(found: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    train, test = {}, {}
    for name, files in found.items():
        if len(files) < 2:
            raise ValueError(f"class {name!r} must have at least two images, one of them to test with, got {files[0]}")
        drawn = sorted(files, key=lambda file: derived_seed("held out", file.name))
        held_out = set(drawn[: max(1, len(files) // HELD_OUT)])
        train[name] = [file for file in files if file not in held_out]
        test[name] = [file for file in files if file in held_out]
    return train, test


def _read(found: dict[str, list[Path]], side: int) -> Part:
    images = [_square(file, side) for files in found.values() for file in files]
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    return torch.stack(images), torch.tensor(labels)


def _square(file: Path, side: int) -> UInt8[Tensor, "3 side side"]:
    from windeye.inspection.images.photo import read_photo

    pixels = torch.from_numpy(read_photo(file).pixels).permute(2, 0, 1)[None]
    height, width = pixels.shape[-2:]
    share = side / min(height, width)
    size = (max(side, round(height * share)), max(side, round(width * share)))
    fitted = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = ((n - side) // 2 for n in size)
    square = fitted[:, top : top + side, left : left + side]
    return (255 * square.clamp(0, 1)).round().to(torch.uint8)
