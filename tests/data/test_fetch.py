"""Installed packages as a source, the real runner on harmless commands, and the reasons that failures give."""

from __future__ import annotations

import hashlib
import importlib
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windeye.data.assets import Asset, AssetUnavailable, fetch, get
from windeye.data.assets.fetch import SourceFailed
from windeye.data.assets.manifest import Debian, Hub, Pypi, Url

Declare = Callable[..., Asset]
RUN = fetch.run  # before the fixture replaces it


def ignore(_: int) -> None:
    pass


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `poems-package` 1.0 with a data file, installed into a folder on sys.path."""
    site = tmp_path / "site"
    for name, content in {
        "poems/data/poem.txt": "roses\n",
        "poems_package-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: poems-package\nVersion: 1.0\n",
        "poems_package-1.0.dist-info/RECORD": "poems/data/poem.txt,,\npoems_package-1.0.dist-info/METADATA,,\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


@pytest.mark.parametrize("inside", ["poems/data", "*/data"])
def test_an_installed_package_comes_before_any_download(
    inside: str, declare: Declare, installed: Path, downloader: Any
) -> None:
    declare(sources=[{"url": "https://example.org/"}, {"pypi": "poems-package==1.0", "inside": inside}])
    paths = get("poem", offline=True)
    assert paths.path.read_text() == "roses\n"
    assert installed not in paths.path.parents, "the cache keeps its own copy"
    assert downloader.commands == []


def test_another_version_is_taken_only_with_a_checksum(declare: Declare, installed: Path) -> None:  # noqa: ARG001
    sources = [{"pypi": "poems-package==2.0", "inside": "poems/data"}]
    declare(sources=sources)
    with pytest.raises(AssetUnavailable, match=r"poems-package 1\.0 is installed, the manifest describes 2\.0"):
        get("poem", offline=True)
    declare(sources=sources, files={"poem.txt": "0" * 64})
    with pytest.raises(AssetUnavailable, match=r"installed poems-package: sha256 of poem\.txt is \w+, expected"):
        get("poem", offline=True)
    declare(sources=sources, files={"poem.txt": hashlib.sha256(b"roses\n").hexdigest()})
    assert get("poem", offline=True).path.read_text() == "roses\n"


def test_an_installed_package_without_the_folder_says_so(declare: Declare, installed: Path, tmp_path: Path) -> None:  # noqa: ARG001
    source = Pypi(("poems-package==1.0",), "songs/data")
    with pytest.raises(SourceFailed, match="songs/data is not there"):
        fetch.from_installed(source, declare(), tmp_path / "into")


def test_an_installed_debian_package_is_found_below_the_root(declare: Declare, tmp_path: Path) -> None:
    source = Debian(("poems",), "usr/share/poems")
    (tmp_path / "root/usr/share/poems").mkdir(parents=True)
    (tmp_path / "root/usr/share/poems/poem.txt").write_text("roses\n")
    fetch.from_installed(source, declare(), tmp_path / "into", system=tmp_path / "root")
    assert (tmp_path / "into/poem.txt").read_text() == "roses\n"
    with pytest.raises(SourceFailed, match="usr/share/poems is not there"):
        fetch.from_installed(source, declare(), tmp_path / "into", system=tmp_path / "elsewhere")


def test_the_runner_works_in_the_folder_and_reports_bytes(tmp_path: Path) -> None:
    seen: list[int] = []
    script = """if True:
        import os, time
        assert os.environ["TMPDIR"] == os.getcwd()
        with open("x", "wb") as file:
            file.write(bytes(1000))
        time.sleep(0.7)
    """
    RUN([sys.executable, "-c", script], tmp_path, seen.append)
    assert (tmp_path / "x").stat().st_size == 1000
    assert max(seen) >= 1000


def test_the_runner_gives_the_last_complaint(tmp_path: Path) -> None:
    script = "import sys; print('ERROR: no such package'); print('a notice'); sys.exit(3)"
    with pytest.raises(SourceFailed, match=r"failed: ERROR: no such package$"):
        RUN([sys.executable, "-c", script], tmp_path, ignore)
    with pytest.raises(SourceFailed, match="failed: it said nothing"):
        RUN([sys.executable, "-c", "raise SystemExit(1)"], tmp_path, ignore)
    with pytest.raises(SourceFailed, match="no-such-program is not on this machine"):
        RUN(["no-such-program"], tmp_path, ignore)


def test_ctrl_c_ends_the_downloader(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RUN([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, interrupt)


def test_a_download_without_an_archive_is_a_failure(declare: Declare, downloader: Any, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with pytest.raises(SourceFailed, match="ended without an archive"):
        fetch.download(Debian(("poems",)), declare(), tmp_path / "into", ignore)
    assert downloader.commands == [["apt-get", "download", "--quiet", "poems"]]


def test_apt_lists_that_were_never_fetched_are_hinted_at(declare: Declare, downloader: Any, tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise SourceFailed("apt-get failed: E: Unable to locate package poems")

    downloader.build = fail
    with pytest.raises(SourceFailed, match=r"Unable to locate package poems; `apt-get update` may help"):
        fetch.download(Debian(("poems",)), declare(), tmp_path / "into", ignore)


def test_without_pip_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch.PathFinder, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailed, match="ensurepip"):
        fetch.pip_command()


def test_without_huggingface_hub_the_reason_names_the_extra(
    declare: Declare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SourceFailed, match=r"huggingface_hub is not installed .*windeye\[hf\]"):
        fetch.download(Hub("a/b"), declare(), tmp_path / "into", ignore)


def test_hub_files_are_copied(declare: Declare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("roses\n")
    asked = []

    class FakeHub:
        @staticmethod
        def hf_hub_download(repository: str, file: str, *, revision: str) -> str:
            asked.append((repository, file, revision))
            if len(asked) > 1:
                raise RuntimeError("404 not found\nlong story")
            return str(tmp_path / "blob")

    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub)  # type: ignore[arg-type]
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: True)
    fetch.download(Hub("a/b", "deep"), declare(), tmp_path / "into", ignore)
    assert (tmp_path / "into/poem.txt").read_text() == "roses\n"
    assert asked == [("a/b", "deep/poem.txt", "main")]
    with pytest.raises(SourceFailed, match=r"deep/poem\.txt: 404 not found$"):
        fetch.download(Hub("a/b", "deep"), declare(), tmp_path / "into", ignore)


def test_urls_are_read_file_by_file(declare: Declare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/poem.txt").write_text("roses\n")
    seen: list[int] = []
    fetch.download(Url((tmp_path / "web").as_uri() + "/"), declare(), tmp_path / "into", seen.append)
    assert (tmp_path / "into/poem.txt").read_text() == "roses\n"
    assert seen == [6]

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(SourceFailed, match=r"poem\.txt: .*no route"):
        fetch.download(Url("https://example.org/"), declare(), tmp_path / "into", ignore)
