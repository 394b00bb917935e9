"""English and Python as bytes: what is on the machine with Python itself, and texts from the asset manifest."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from windeye.data.assets import get
from windeye.data.assets.loaders import read_text


def corpus(name: str, *, offline: bool = False) -> UInt8[Tensor, " bytes"]:
    """A text as bytes, one token a byte.

    Args:
        name: one of `CORPORA`: "pydoc" (help topics of Python, 0.5 to 0.8 MB) and "python" (sources of the standard
            library, about 30 MB) are on every machine and depend on the version of Python; "gcide" (a dictionary, 40
            MB), "austen" (six novels, 4.5 MB) and "kjv" (a Bible, 31 102 verses, one a line) are assets that are
            fetched and verified once.
        offline: never download.

    Raises:
        ValueError: unknown name. windeye.data.AssetUnavailable: the asset could not be brought here.

    Example:
        >>> bytes(corpus("pydoc")[:300]).decode().isprintable() or "text"
        'text'
    """
    if name not in CORPORA:
        raise ValueError(f"name must be one of {tuple(CORPORA)}, got {name!r}")
    return torch.frombuffer(bytearray(CORPORA[name](offline)), dtype=torch.uint8)


def _pydoc(_: bool) -> bytes:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _python(_: bool) -> bytes:
    return python_sources(Path(sysconfig.get_path("stdlib")))


def python_sources(folder: Path) -> bytes:
    """All sources below a folder, in the order of their paths; installed packages are not part of it."""
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    own = sorted(path.as_posix() for path in paths if not {"site-packages", "dist-packages"} & set(path.parts))
    return b"\n".join((folder / path).read_bytes() for path in own)


def _gcide(offline: bool) -> bytes:
    return read_text(get("gcide", offline=offline).path).encode()


def _austen(offline: bool) -> bytes:
    return read_novels(get("jane-austen", offline=offline)["Rdata.rdb"].read_bytes())


def _kjv(offline: bool) -> bytes:
    return read_bible(get("king-james-bible", offline=offline)["bible.data"].read_bytes())


CORPORA: Mapping[str, Callable[[bool], bytes]] = {
    "pydoc": _pydoc,
    "python": _python,
    "gcide": _gcide,
    "austen": _austen,
    "kjv": _kjv,
}


def read_novels(database: bytes) -> bytes:
    """The lines of every character vector in a lazy-load database of R, one text after the other.

    Layout: blocks of a big-endian size and a zlib stream; in each R's XDR serialisation, version 3, of one vector.
    """
    return b"\n\n".join(b"\n".join(_strings(block)) for block in _blocks(database))


def _blocks(database: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(database):
        stream = zlib.decompressobj()
        yield stream.decompress(database[place + 4 :])
        place = len(database) - len(stream.unused_data)


def _strings(block: bytes) -> Iterator[bytes]:
    # "X\n", three version numbers, the name of the encoding, then the vector: its type, its length, its strings.
    version, size = struct.unpack_from(">I8xI", block, 2)
    if block[:2] != b"X\n" or version != 3:
        raise ValueError(f"not an R serialisation of version 3: it starts with {block[:6]!r}")
    place = 18 + size
    kind, count = struct.unpack_from(">II", block, place)
    if kind & 0xFF != 16:
        raise ValueError(f"not a vector of strings: R type {kind & 0xFF}")
    place += 8
    for _ in range(count):
        (length,) = struct.unpack_from(">4xi", block, place)
        place += 8
        yield block[place : place + max(length, 0)]  # -1 is R's NA
        place += max(length, 0)


def read_bible(data: bytes) -> bytes:
    """The verses in the data file of the program bible-kjv, one a line behind its reference; the title is left out.

    Layout: a header with an index, then one stream of Unix compress, which the standard library cannot read.
    """
    gzip = shutil.which("gzip")
    if gzip is None:
        raise RuntimeError("reading the King James Bible needs the program gzip, which is not on this machine")
    start = data.find(b"\x1f\x9d")
    if start < 0:
        raise ValueError(f"no compressed stream in the Bible's data file; it starts with {data[:8]!r}")
    done = subprocess.run([gzip, "-dc"], input=data[start:], capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"the Bible's data file is damaged: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.partition(b"\n")[2]
