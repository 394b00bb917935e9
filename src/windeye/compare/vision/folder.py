"""Pictures of any sizes in folders, as squares of one size."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional

from windeye.data.images import Files, ImageFolder
from windeye.inspection.images.photo import read_photo

Part = tuple[UInt8[Tensor, "n 3 side side"], Int64[Tensor, " n"]]


def read_folder(path: Path, side: int) -> tuple[tuple[str, ...], Part, Part]:
    """Classes, what is trained on and what is tested with: see `windeye.data.images.ImageFolder.at`.

    Each picture is turned upright, its shorter side is made ``side`` long, and the middle is cut out.

    Raises:
        ValueError: folders that do not hold classes, or a file that is no image; names it.
        ImportError: Pillow is missing.
    """
    found = ImageFolder.at(path)
    return found.classes, _read(found.train, side), _read(found.test, side)


def listed(path: Path) -> list[tuple[str, int, int]]:
    """Every file below a folder with its size and time: what tells one state of it from another."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _read(files: Files, side: int) -> Part:
    return torch.stack([_square(path, side) for path in files.paths]), files.labels


def _square(path: Path, side: int) -> UInt8[Tensor, "3 side side"]:
    pixels = torch.from_numpy(read_photo(path).pixels).permute(2, 0, 1)[None]
    height, width = pixels.shape[-2:]
    share = side / min(height, width)
    size = (max(side, round(height * share)), max(side, round(width * share)))
    fitted = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = ((n - side) // 2 for n in size)
    square = fitted[:, top : top + side, left : left + side]
    return (255 * square.clamp(0, 1)).round().to(torch.uint8)
