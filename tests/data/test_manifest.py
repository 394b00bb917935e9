"""The manifest that ships is valid, and breaking one of its rules is an error that names the asset and the rule."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable

import pytest

from windeye.data.assets import Asset, UnknownAsset, find, list_assets
from windeye.data.assets.loaders import READERS
from windeye.data.assets.manifest import KINDS, ManifestError, Pypi, parse_asset, parse_manifest

VALID = {
    "description": "d",
    "kind": "text",
    "licence": "CC0",
    "size_mb": 1,
    "files": {"a.txt": ""},
    "sources": [{"debian": "pkg", "inside": "usr/share"}],
}


@pytest.mark.parametrize("asset", list_assets(), ids=lambda asset: asset.name)
def test_every_shipped_asset_is_complete(asset: Asset) -> None:
    assert asset.description
    assert asset.licence
    assert asset.kind in KINDS
    assert 0 < asset.size_mb < 1000
    assert asset.files
    assert asset.sources
    assert asset.loader is None or asset.loader in READERS
    assert all(file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256) for file in asset.files)


def test_names_are_unique() -> None:
    names = [asset.name for asset in list_assets()]
    assert len(names) == len(set(names)) > 40
    with pytest.raises(tomllib.TOMLDecodeError):
        parse_manifest("[a]\n[a]\n")


def test_unclear_licences_are_kept_to_experiments() -> None:
    unclear = re.compile(r"unclear|unstated|no licence|NC|own terms|do not redistribute")
    assert {asset.name for asset in list_assets() if unclear.search(asset.licence)} == {
        asset.name for asset in list_assets() if asset.experiments_only
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"licence": ""}, "licence must not be empty"),
        ({"sources": []}, "at least one file and one source"),
        ({"files": {}}, "at least one file and one source"),
        ({"files": {"a": "abc"}}, "not a sha256"),
        ({"files": {"../a": ""}}, "unsafe file name"),
        ({"kind": "poem"}, "kind 'poem' is not one of"),
        ({"colour": "red"}, r"unknown keys \['colour'\]"),
        ({"sources": [{"pypi": "pkg"}]}, "pinned as name==version"),
        ({"sources": [{"npm": "pkg"}]}, "one of pypi, debian, hub, url"),
        ({"sources": [{"debian": "pkg", "sdist": True}]}, r"unknown keys \['sdist'\]"),
        ({"sources": [{"debian": "pkg", "inside": "/usr"}]}, "relative path"),
        ({"sources": [{"url": "https://example.org"}]}, "must end with '/'"),
        ({"sources": [{"url": "https://example.org/"}], "files": {"a/": ""}}, "cannot bring the folders"),
    ],
)
def test_broken_rules_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ManifestError, match=f"asset 'thing': .*{complaint}"):
        parse_asset("thing", VALID | change)


def test_missing_keys_and_bad_names_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"misses \['sources'\]"):
        parse_asset("thing", {key: value for key, value in VALID.items() if key != "sources"})
    with pytest.raises(ManifestError, match="lower-case words"):
        parse_asset("No Good", VALID)


def test_sources_keep_their_order_and_say_what_they_are() -> None:
    sources = [{"pypi": ["a==1", "b==2"], "sdist": True}, {"debian": "c"}, {"hub": "d/e"}, {"url": "https://f/"}]
    asset = parse_asset("thing", VALID | {"sources": sources})
    assert [str(source) for source in asset.sources] == [
        "PyPI source package a==1 + b==2",
        "Debian package c",
        "Hugging Face hub d/e",
        "URL https://f/",
    ]
    assert asset.sources[0] == Pypi(("a==1", "b==2"), sdist=True)


def test_unknown_names_come_with_close_ones(declare: Callable[..., Asset]) -> None:
    declare("fashion-mnist")
    declare("whisper-base")
    with pytest.raises(UnknownAsset, match="did you mean 'fashion-mnist'"):
        find("fashion-minst")
    with pytest.raises(UnknownAsset, match="did you mean 'whisper-base'"):
        find("whisper")
    with pytest.raises(UnknownAsset, match="`windeye assets list` shows all names"):
        find("zzz")
