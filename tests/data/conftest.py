"""A cache of its own for every test, no network, and builders of tiny wheels, source packages and Debian packages."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from windeye.data.assets import fetch, manifest
from windeye.data.assets.fetch import Tick
from windeye.data.assets.manifest import Asset, parse_asset

Files = Mapping[str, bytes]


def _wheel(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _tar(files: Files, compression: str, prefix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _sdist(path: Path, files: Files) -> Path:
    path.write_bytes(_tar(files, "gz", "package-1.0/"))
    return path


def _deb(path: Path, files: Files, compression: str = "xz") -> Path:
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({}, "gz", "./") + b"!",  # odd length: the next member starts after a pad byte
        f"data.tar.{compression}".rstrip("."): _tar(files, compression, "./"),
    }
    content = b"!<arch>\n"
    for name, data in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        content += b"\n" * (len(data) % 2)
    path.write_bytes(content)
    return path


class Downloader:
    """Stands in for pip and apt-get: 'downloads' by building an archive, and remembers what it was asked."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.build: Callable[[Path], object] = lambda _: None

    def __call__(self, command: Sequence[str], folder: Path, tick: Tick) -> None:
        self.commands.append(command)
        tick(1)
        self.build(folder)


@pytest.fixture
def build() -> SimpleNamespace:
    """`build.wheel(path, files)`, `build.sdist(path, files)`, `build.deb(path, files, compression="xz")`."""
    return SimpleNamespace(wheel=_wheel, sdist=_sdist, deb=_deb)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WINDEYE_CACHE", str(folder))
    monkeypatch.delenv("WINDEYE_OFFLINE", raising=False)
    return folder


@pytest.fixture(autouse=True)
def downloader(monkeypatch: pytest.MonkeyPatch) -> Downloader:
    fake = Downloader()
    monkeypatch.setattr(fetch, "run", fake)
    return fake


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asset]:
    """Put an asset into an otherwise empty manifest; keywords override its table."""
    assets: dict[str, Asset] = {}
    monkeypatch.setattr(manifest, "manifest", lambda: assets)

    def add(name: str = "poem", **table: object) -> Asset:
        defaults: dict[str, object] = {
            "description": "a short poem",
            "kind": "text",
            "licence": "CC0",
            "size_mb": 0.1,
            "files": {"poem.txt": ""},
            "sources": [{"pypi": "windeye-no-such-package==1.0", "inside": "poems/data"}],
        }
        assets[name] = parse_asset(name, defaults | table)
        return assets[name]

    return add
