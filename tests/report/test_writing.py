"""Files are there whole or not at all."""

from pathlib import Path

import pytest

from windeye.report.writing import write_whole


@pytest.mark.parametrize("content", ["ä line\n", b"\x00\xff"])
def test_it_is_written_and_replaces_what_was_there(tmp_path, content):
    path = tmp_path / "a" / "b.json"
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert list(path.parent.iterdir()) == [path]
        path.write_text("before")


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_what_was_there_stays_when_it_fails(tmp_path, monkeypatch, broken):
    path = tmp_path / "b.json"
    path.write_text("before")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "after")
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
