"""Getting assets: cache, then installed packages, then downloads, in that order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from windeye.data.assets import cache, fetch
from windeye.data.assets.cache import AssetPaths, ChecksumMismatch
from windeye.data.assets.fetch import SourceFailed, Tick
from windeye.data.assets.manifest import Asset, AssetFile, Debian, Hub, Pypi, Source, Url, find


@dataclass(frozen=True)
class Attempt:
    """One place that was tried, and why it did not yield the asset."""

    place: str
    reason: str


class AssetUnavailable(RuntimeError):
    """The asset is not here and could not be brought here; the message says what was tried and what helps."""

    def __init__(self, asset: Asset, attempts: Sequence[Attempt], offline: bool) -> None:
        self.asset = asset
        self.attempts = tuple(attempts)
        self.offline = offline
        super().__init__(_explain(asset, attempts, offline))


def _explain(asset: Asset, attempts: Sequence[Attempt], offline: bool) -> str:
    state = "and downloads are off" if offline else "and could not be fetched"
    lines = [f"asset {asset.name!r} ({asset.description}) is not on this machine {state}.", "Tried:"]
    lines += [f"  - {attempt.place}: {attempt.reason}" for attempt in attempts]
    lines.append("What you can do:")
    if offline:
        lines.append("  - allow downloads: unset WINDEYE_OFFLINE and do not pass offline=True")
    for source in asset.sources:
        lines.append(f"  - {_by_hand(source)}")
    lines.append(f"  - put these files into {cache.entry(asset)}:")
    lines += [f"      {file.name}{_checksum_hint(file)}" for file in asset.files]
    lines.append("  - point WINDEYE_CACHE at a folder that holds the asset already")
    return "\n".join(lines)


def _checksum_hint(file: AssetFile) -> str:
    if file.sha256 is None or file.is_folder:
        return ""
    return f"  ({'decompressed ' if file.name.endswith(cache.GZIPPED) else ''}sha256 {file.sha256})"


def _by_hand(source: Source) -> str:
    match source:
        case Pypi(sdist=True):
            command = f"pip download --no-deps --no-binary :all: {source.packages[0]}"
            return f"run `{command}` elsewhere; the files are below {source.inside!r} in it"
        case Pypi():
            return f"pip install --no-deps {' '.join(source.packages)}; installed packages are found without a download"
        case Debian():
            return f"apt install {' '.join(source.packages)}; installed packages are found without a download"
        case Hub():
            return f"pip install huggingface_hub, which fetches from {source.repository}"
        case Url():
            return f"download from {source.base}"


def downloads_are_off() -> bool:
    """Whether `WINDEYE_OFFLINE` forbids downloads."""
    return os.environ.get("WINDEYE_OFFLINE", "").strip().lower() not in ("", "0", "no", "false", "off")


def _already_here(source: Pypi | Debian) -> str:
    return f"installed {' + '.join(package.partition('==')[0] for package in source.packages)}"


def _from_installed(source: Pypi | Debian, asset: Asset, into: Path, _: Tick) -> None:
    fetch.from_installed(source, asset, into)


def _plan(asset: Asset) -> Iterator[tuple[str, bool, Callable[[Path, Tick], None]]]:
    """Places to try in order: (name, whether it downloads, how). All that is installed comes before any download."""
    for source in asset.sources:
        if isinstance(source, Debian) or (isinstance(source, Pypi) and not source.sdist):
            yield _already_here(source), False, partial(_from_installed, source, asset)
    for source in asset.sources:
        yield str(source), True, partial(fetch.download, source, asset)


@contextmanager
def _ticker(asset: Asset, place: str, show: bool) -> Iterator[Tick]:
    """A line on stderr with the package, how much has arrived of how much, and the time taken."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{asset.name} from {place}", total=round(asset.size_mb * 1e6))
        yield lambda arrived: bar.update(task, completed=arrived)


def get(name: str, *, progress: bool = True, offline: bool = False) -> AssetPaths:
    """Bring an asset to this machine, if it is not there yet, and say where its files are.

    The cache (`$WINDEYE_CACHE`, default `~/.cache/windeye`) is asked first, then packages that are installed, then the
    asset's sources in the manifest's order. Nothing is ever installed; every checksum that the manifest knows is
    verified; an interrupted download leaves nothing behind; two processes do not get into each other's way.

    Args:
        name: the asset's name, one of `list_assets()`.
        progress: show a progress line on stderr while downloading.
        offline: never download; `WINDEYE_OFFLINE=1` in the environment does the same.

    Raises:
        UnknownAsset: the manifest has no such name (the message suggests close ones).
        AssetUnavailable: no place yielded it; the message lists each with its reason, and what you can do.
    """
    asset = find(name)
    if found := cache.look_up(asset):
        return found
    offline = offline or downloads_are_off()
    with cache.lock(asset):
        if found := cache.look_up(asset):  # another process was quicker
            return found
        try:
            return cache.adopt(asset)
        except ChecksumMismatch as error:
            attempts = [Attempt(f"cache {cache.entry(asset)}", str(error))]
        for place, downloads, bring in _plan(asset):
            if downloads and offline:
                attempts.append(Attempt(place, "not tried, downloads are off"))
                continue
            try:
                with cache.staging(asset) as folder, _ticker(asset, place, progress and downloads) as tick:
                    bring(folder, tick)
                    return cache.commit(asset, folder, place)
            except (SourceFailed, ChecksumMismatch) as error:
                attempts.append(Attempt(place, str(error)))
    raise AssetUnavailable(asset, attempts, offline)


def where(name: str) -> AssetPaths | None:
    """Where a cached asset lies, or None if it was not fetched yet. Never downloads.

    Raises:
        UnknownAsset: the manifest has no such name.
    """
    return cache.look_up(find(name))
