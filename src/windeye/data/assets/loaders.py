"""From an asset's files to arrays and text, for the kinds that need nothing but NumPy and Pillow.

Assets without a loader are used by their paths: what weights or videos turn into is the business of who uses them.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from windeye.data.assets.cache import AssetPaths
from windeye.data.assets.manifest import find
from windeye.data.assets.store import get

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _read(path: Path) -> bytes:
    """Content of a file, decompressed if it is gzip (dictd's .dz is gzip with an index that readers may skip)."""
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """An image file as red, green, blue bytes."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'windeye[vision]'") from error
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def read_idx(path: Path) -> Shaped[np.ndarray, ...]:
    """An array in the IDX format of the MNIST family, plain or gzipped.

    Layout: two zero bytes, a type code, the rank, one big-endian u32 per axis, then the values, big-endian, row-major.
    """
    content = _read(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_DTYPES:
        raise ValueError(f"{path.name} is not an IDX file: it starts with {content[:4]!r}")
    dtype, rank = np.dtype(_IDX_DTYPES[content[2]]), content[3]
    shape = struct.unpack_from(f">{rank}I", content, 4)
    values = np.frombuffer(content, dtype, offset=4 + 4 * rank)
    return values.reshape(shape).astype(dtype.newbyteorder("="))


def read_text(path: Path) -> str:
    """A text file in UTF-8, plain or gzipped; bytes that are not UTF-8 become the replacement character."""
    return _read(path).decode("utf-8", errors="replace")


def read_table(path: Path) -> Float64[np.ndarray, "row column"]:
    """A comma-separated table of numbers, plain or gzipped."""
    return np.loadtxt(path, delimiter=",", ndmin=2)


READERS: Mapping[str, Callable[[Path], Any]] = {
    "image": read_image,
    "idx": read_idx,
    "text": read_text,
    "table": read_table,
}


def load_files(paths: AssetPaths, loader: str) -> Any:
    """Read an asset's files: the value itself for one file, a dict by file name for several."""
    read = READERS[loader]
    if len(paths.files) == 1:
        return read(paths.files[0])
    return {path.relative_to(paths.folder).as_posix(): read(path) for path in paths.files}


def load(name: str, *, progress: bool = True, offline: bool = False) -> Any:
    """`get` an asset and read it: images as uint8 [H, W, 3], IDX files as arrays, text as str.

    Several files come as a dict by file name. Raises `ValueError` for an asset that has no loader (use `get`), and
    whatever `get` raises.
    """
    loader = find(name).loader
    if loader is None:
        raise ValueError(f"asset {name!r} has no loader; use get({name!r}) for its paths")
    return load_files(get(name, progress=progress, offline=offline), loader)
