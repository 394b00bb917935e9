"""Cache first, then installed packages, then downloads; nothing unverified and nothing half-done is ever kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from windeye.data.assets import Asset, AssetUnavailable, UnknownAsset, cache_directory, fetch, get, where

POEM = b"roses are red\n"
SHA256 = hashlib.sha256(POEM).hexdigest()
Declare = Callable[..., Asset]


def serve_wheel(build: SimpleNamespace, content: bytes = POEM) -> Callable[[Path], object]:
    return lambda folder: build.wheel(folder / "poems-1.0-py3-none-any.whl", {"poems/data/poem.txt": content})


def left_over(cache: Path) -> list[str]:
    """Everything in the cache except lock files and empty folders."""
    return sorted(
        path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_a_wheel_is_downloaded_without_installing_and_cached(
    declare: Declare, downloader: Any, build: SimpleNamespace, cache: Path
) -> None:
    declare(files={"poem.txt": SHA256})
    downloader.build = serve_wheel(build)
    paths = get("poem")
    assert paths.path == cache / "poem" / "poem.txt" == paths["poem.txt"]
    assert paths.path.read_bytes() == POEM
    with open(paths) as file:
        assert file.read() == POEM.decode()
    (command,) = downloader.commands
    assert {"download", "--no-deps", "--only-binary", "windeye-no-such-package==1.0"} <= set(command)
    assert get("poem") == where("poem") == paths
    assert len(downloader.commands) == 1, "the second get is a cache hit"
    assert left_over(cache) == ["poem/.receipt.json", "poem/poem.txt"]


def test_an_sdist_is_asked_for_as_source(declare: Declare, downloader: Any, build: SimpleNamespace) -> None:
    declare(sources=[{"pypi": "poems==1.0", "sdist": True, "inside": "data"}])
    downloader.build = lambda folder: build.sdist(folder / "poems-1.0.tar.gz", {"data/poem.txt": POEM})
    assert get("poem").path.read_bytes() == POEM
    assert "--no-binary" in downloader.commands[0]


def test_two_debian_packages_make_one_asset(declare: Declare, downloader: Any, build: SimpleNamespace) -> None:
    declare(
        files={"sound/": "", "poem.txt.gz": ""},
        sources=[{"debian": ["poems-wav", "poems-text"], "inside": "usr/share/no-such-poems"}],
    )

    def build_next(folder: Path) -> None:
        package = downloader.commands[-1][-1]
        files = {"poems-wav": {"sound/a.wav": b"a"}, "poems-text": {"poem.txt.gz": POEM}}[package]
        build.deb(folder / f"{package}_1_all.deb", {f"usr/share/no-such-poems/{name}": v for name, v in files.items()})

    downloader.build = build_next
    paths = get("poem")
    assert [command[:2] for command in downloader.commands] == [["apt-get", "download"]] * 2
    assert paths.path == paths.folder, "several files: the path is the folder"
    assert (paths["sound/"] / "a.wav").read_bytes() == b"a"
    with pytest.raises(KeyError, match=r"no file 'x'; it has sound, poem\.txt\.gz"):
        paths["x"]


def test_a_wrong_checksum_is_never_kept(declare: Declare, downloader: Any, build: SimpleNamespace, cache: Path) -> None:
    declare(files={"poem.txt": SHA256})
    downloader.build = serve_wheel(build, b"violets are blue\n")
    with pytest.raises(AssetUnavailable, match=rf"sha256 of poem\.txt is \w+, expected {SHA256}"):
        get("poem")
    assert left_over(cache) == []
    assert where("poem") is None


def test_the_next_source_is_tried_after_a_failure(declare: Declare, downloader: Any, build: SimpleNamespace) -> None:
    declare(
        files={"poem.txt": SHA256},
        sources=[{"pypi": "bad-poems==1", "inside": "poems/data"}, {"pypi": "good-poems==1", "inside": "poems/data"}],
    )
    downloader.build = lambda folder: serve_wheel(build, POEM if "good" in downloader.commands[-1][-1] else b"bad")(
        folder
    )
    assert get("poem").path.read_bytes() == POEM


@pytest.mark.parametrize("moment", ["while downloading", "while unpacking"])
def test_ctrl_c_leaves_nothing(
    moment: str,
    declare: Declare,
    downloader: Any,
    build: SimpleNamespace,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    downloader.build = interrupt if moment == "while downloading" else serve_wheel(build)
    with monkeypatch.context() as patch:
        if moment == "while unpacking":
            patch.setattr(fetch, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get("poem")
    assert left_over(cache) == []
    downloader.build = serve_wheel(build)
    assert get("poem").path.read_bytes() == POEM, "and the next try works"


def test_what_a_killed_process_left_is_swept_away(
    declare: Declare, downloader: Any, build: SimpleNamespace, cache: Path
) -> None:
    declare()
    (cache / ".staging" / "poem" / "old").mkdir(parents=True)
    (cache / ".staging" / "poem" / "old" / "half").write_bytes(b"...")
    downloader.build = serve_wheel(build)
    get("poem")
    assert left_over(cache) == ["poem/.receipt.json", "poem/poem.txt"]


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_offline_says_what_was_tried_and_what_helps(
    switch: str, declare: Declare, downloader: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(files={"poem.txt": SHA256})
    if switch == "environment":
        monkeypatch.setenv("WINDEYE_OFFLINE", "1")
    with pytest.raises(AssetUnavailable) as failure:
        get("poem", offline=switch == "argument")
    message = str(failure.value)
    for line in [
        "asset 'poem' (a short poem) is not on this machine and downloads are off.",
        f"- cache {cache / 'poem'}: nothing there",
        "- installed windeye-no-such-package: windeye-no-such-package is not installed",
        "- PyPI wheel windeye-no-such-package==1.0: not tried, downloads are off",
        "unset WINDEYE_OFFLINE",
        "pip install --no-deps windeye-no-such-package==1.0",
        f"put these files into {cache / 'poem'}:",
        f"poem.txt  (sha256 {SHA256})",
        "WINDEYE_CACHE",
    ]:
        assert line in message
    assert failure.value.offline
    assert len(failure.value.attempts) == 3
    assert downloader.commands == []


def test_offline_zero_means_online(declare: Declare, downloader: Any, build: SimpleNamespace, monkeypatch: Any) -> None:
    declare()
    monkeypatch.setenv("WINDEYE_OFFLINE", "0")
    downloader.build = serve_wheel(build)
    assert get("poem").path.exists()


def test_a_file_put_there_by_hand_is_verified_and_adopted(declare: Declare, downloader: Any, cache: Path) -> None:
    declare(files={"poem.txt": SHA256})
    (cache / "poem").mkdir(parents=True)
    (cache / "poem" / "poem.txt").write_bytes(b"wrong")
    with pytest.raises(AssetUnavailable, match=r"cache .*: sha256 of poem\.txt is"):
        get("poem", offline=True)
    (cache / "poem" / "poem.txt").write_bytes(POEM)
    assert where("poem") is None, "not before it was verified"
    assert get("poem", offline=True) == where("poem")
    assert downloader.commands == []


def test_a_cached_file_that_changed_size_or_checksum_is_fetched_anew(
    declare: Declare, downloader: Any, build: SimpleNamespace
) -> None:
    declare(files={"poem.txt": SHA256})
    downloader.build = serve_wheel(build)
    get("poem").path.write_bytes(b"cut")
    assert where("poem") is None
    assert get("poem").path.read_bytes() == POEM
    new = b"another edition"
    declare(files={"poem.txt": hashlib.sha256(new).hexdigest()})
    assert where("poem") is None, "the manifest describes another file now"
    downloader.build = serve_wheel(build, new)
    assert get("poem").path.read_bytes() == new


def test_gzipped_files_count_by_their_content(declare: Declare, downloader: Any, build: SimpleNamespace) -> None:
    import gzip

    declare(files={"poem.txt.gz": SHA256})
    packed = gzip.compress(POEM, mtime=12345)
    downloader.build = lambda folder: build.wheel(folder / "p.whl", {"poems/data/poem.txt.gz": packed})
    assert get("poem").path.read_bytes() == packed
    declare("other", files={"poem.txt.gz": "0" * 64})
    with pytest.raises(AssetUnavailable, match="decompressed sha256"):
        get("other", offline=True)


def test_two_at_once_download_once(declare: Declare, downloader: Any, build: SimpleNamespace) -> None:
    declare()
    gate = threading.Barrier(2)
    downloader.build = serve_wheel(build)
    found = []

    def fetch_it() -> None:
        gate.wait()
        found.append(get("poem"))

    threads = [threading.Thread(target=fetch_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(downloader.commands) == 1


def test_unknown_names_are_refused_before_anything_happens(declare: Declare, cache: Path) -> None:
    declare()
    for call in (get, where):
        with pytest.raises(UnknownAsset, match="did you mean 'poem'"):
            call("peom")
    assert not cache.exists()


def test_an_unwritable_cache_names_the_variable(declare: Declare, cache: Path) -> None:
    declare()
    cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write to its cache .*; set WINDEYE_CACHE"):
        get("poem")


def test_the_cache_is_in_the_home_folder_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WINDEYE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "windeye"
