"""The folder where fetched assets live: `$WINDEYE_CACHE/<asset>/<file>`.

An entry counts only with a receipt, and a receipt is written only after every checksum was compared. Entries are built
in a staging folder and renamed into place, so neither Ctrl-C nor a second process ever leaves half an asset behind.
Files that a person puts there by hand are adopted: verified once, then given a receipt.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from windeye.data.assets.manifest import Asset

RECEIPT = ".receipt.json"
STAGING = ".staging"
LOCKS = ".locks"
GZIPPED = (".gz", ".dz")


class ChecksumMismatch(Exception):
    """A file is missing or is not the one that the manifest describes."""


@dataclass(frozen=True)
class AssetPaths(os.PathLike[str]):
    """Where an asset lies on this machine.

    `open(paths)` and `Path(paths)` work: they mean the one file, or the folder if the asset has several.
    """

    name: str
    folder: Path
    files: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The one file of the asset, or its folder if there are several."""
        return self.files[0] if len(self.files) == 1 else self.folder

    def __fspath__(self) -> str:
        return str(self.path)

    def __getitem__(self, file: str) -> Path:
        path = self.folder / file
        if path not in self.files:
            known = ", ".join(known.relative_to(self.folder).as_posix() for known in self.files)
            raise KeyError(f"asset {self.name!r} has no file {file!r}; it has {known}")
        return path


def cache_directory() -> Path:
    """`$WINDEYE_CACHE`, or `~/.cache/windeye`."""
    return Path(os.environ.get("WINDEYE_CACHE") or Path.home() / ".cache" / "windeye").expanduser().absolute()


def entry(asset: Asset) -> Path:
    """The folder of an asset, whether or not it is there."""
    return cache_directory() / asset.name


def paths(asset: Asset) -> AssetPaths:
    folder = entry(asset)
    return AssetPaths(asset.name, folder, tuple(folder / file.name for file in asset.files))


def _digest(read: Callable[[int], bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def checksum(path: Path) -> str:
    """sha256 of a file; of a folder, the sha256 of its sorted listing of `<sha256>  <relative path>` lines.

    A gzipped file counts by its decompressed content: distributions compress the same data anew, with other headers.
    """
    if path.is_file():
        if path.suffix in GZIPPED:
            with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path, "rb") as content:
                return _digest(content.read)
        with path.open("rb") as file:
            return _digest(file.read)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listing = "".join(f"{checksum(files[name])}  {name}\n" for name in sorted(files) if name != RECEIPT)
    return hashlib.sha256(listing.encode()).hexdigest()


def verify(asset: Asset, folder: Path) -> dict[str, str]:
    """Checksums of the asset's files in `folder`; `ChecksumMismatch` if one is missing or differs from the manifest."""
    if not folder.is_dir():
        raise ChecksumMismatch("nothing there")
    checksums = {}
    for file in asset.files:
        path = folder / file.name
        if not path.exists() or (file.is_folder and not any(inner.name != RECEIPT for inner in path.iterdir())):
            raise ChecksumMismatch(f"{file.name} is not there")
        checksums[file.name] = checksum(path)
        if file.sha256 and checksums[file.name] != file.sha256:
            raise ChecksumMismatch(f"sha256 of {file.name} is {checksums[file.name]}, expected {file.sha256}")
    return checksums


def _receipt(asset: Asset, source: str, checksums: Mapping[str, str], folder: Path) -> str:
    sizes = {name: (folder / name).stat().st_size for name in checksums if not name.endswith("/")}
    return json.dumps({"asset": asset.name, "source": source, "sha256": checksums, "bytes": sizes}, indent=1)


def look_up(asset: Asset) -> AssetPaths | None:
    """The cached asset, or None if there is no entry with a receipt that fits the manifest.

    Sizes are compared, contents are not: a hit has to be quick even for weights of 100 MB.
    """
    folder = entry(asset)
    try:
        receipt = json.loads((folder / RECEIPT).read_text())
        fits = all(
            (folder / file.name).exists()
            and receipt["sha256"][file.name] == (file.sha256 or receipt["sha256"][file.name])
            and (file.is_folder or (folder / file.name).stat().st_size == receipt["bytes"][file.name])
            for file in asset.files
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return paths(asset) if fits else None


def adopt(asset: Asset) -> AssetPaths:
    """Verify files that lie in the entry without a fitting receipt, and write the receipt."""
    checksums = verify(asset, entry(asset))
    with contextlib.suppress(OSError):  # a cache shared read-only is still usable, only verified each time
        (entry(asset) / RECEIPT).write_text(_receipt(asset, "put there by hand", checksums, entry(asset)))
    return paths(asset)


@contextlib.contextmanager
def lock(asset: Asset) -> Iterator[None]:
    """One process at a time fetches an asset; the others wait and then find it."""
    locks = cache_directory() / LOCKS
    try:
        locks.mkdir(parents=True, exist_ok=True)
        held = FileLock(locks / f"{asset.name}.lock")
        held.acquire()
    except OSError as error:
        raise OSError(
            f"windeye cannot write to its cache {cache_directory()} ({error}); "
            "set WINDEYE_CACHE to a folder you can write to"
        ) from error
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def staging(asset: Asset) -> Iterator[Path]:
    """A folder beside the entries that is gone afterwards, whatever happened. To be used under `lock`."""
    parent = cache_directory() / STAGING / asset.name
    # Only a process that was killed outright leaves something here, and the lock says it is not at work any more.
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    try:
        yield Path(tempfile.mkdtemp(dir=parent))
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def commit(asset: Asset, folder: Path, source: str) -> AssetPaths:
    """Verify `folder` (inside a staging folder) and rename it to be the asset's entry."""
    (folder / RECEIPT).write_text(_receipt(asset, source, verify(asset, folder), folder))
    if entry(asset).exists():
        entry(asset).rename(folder.parent / "replaced")
    folder.rename(entry(asset))
    return paths(asset)
