"""`windeye assets list|get|where`: tables for people, JSON for machines, exit codes for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from windeye.cli.assets import app
from windeye.data.assets import Asset

Declare = Callable[..., Asset]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def shelf(declare: Declare, cache: Path) -> None:
    declare()
    declare("song", kind="audio", description="a [short] song", files={"song.ogg": ""}, experiments_only=True)
    (cache / "poem").mkdir(parents=True)
    (cache / "poem" / "poem.txt").write_text("roses\n")


@pytest.mark.usefixtures("shelf")
def test_list_shows_a_table_and_filters_by_words() -> None:
    everything = invoke("list")
    assert everything.exit_code == 0
    assert "poem" in everything.output
    assert "a [short] song" in everything.output
    assert "CC0 *" in everything.output
    assert "poem" not in invoke("list", "audio", "SONG").output
    nothing = invoke("list", "poem", "whale")
    assert nothing.exit_code == 0
    assert nothing.output == "no asset mentions poem and whale; `windeye assets list` shows all\n"
    assert json.loads(invoke("list", "whale", "--json").output) == []


@pytest.mark.usefixtures("shelf")
def test_list_speaks_json(cache: Path) -> None:
    assert invoke("get", "poem").exit_code == 0
    poem, song = json.loads(invoke("list", "--json").output)
    assert poem["cached_at"] == str(cache / "poem" / "poem.txt")
    assert song["cached_at"] is None
    assert song["experiments_only"]
    assert song["files"] == {"song.ogg": None}
    assert song["sources"] == ["PyPI wheel windeye-no-such-package==1.0"]


@pytest.mark.usefixtures("shelf")
def test_get_prints_paths_and_where_finds_them(cache: Path) -> None:
    path = str(cache / "poem" / "poem.txt")
    missing = invoke("where", "poem")
    assert missing.exit_code == 1
    assert "not fetched yet" in missing.output
    assert invoke("get", "poem").stdout == path + "\n"
    assert invoke("where", "poem").stdout == path + "\n"


@pytest.mark.usefixtures("shelf")
def test_restricted_assets_are_announced_on_stderr(cache: Path) -> None:
    (cache / "song").mkdir()
    (cache / "song" / "song.ogg").write_bytes(b"la")
    result = invoke("get", "song")
    assert "for experiments only" in result.stderr
    assert result.stdout == f"{cache / 'song' / 'song.ogg'}\n"


@pytest.mark.usefixtures("shelf")
def test_an_unavailable_asset_is_exit_code_1_and_the_others_are_still_fetched(cache: Path) -> None:
    result = invoke("get", "song", "poem", "--offline")
    assert result.exit_code == 1
    assert "asset 'song'" in result.stderr
    assert result.stdout == f"{cache / 'poem' / 'poem.txt'}\n"


def test_an_unwritable_cache_is_a_message_not_a_traceback(declare: Declare, cache: Path) -> None:
    declare()
    cache.write_text("in the way")
    result = invoke("get", "poem")
    assert result.exit_code == 1
    assert "set WINDEYE_CACHE" in result.stderr


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("command", ["get", "where"])
def test_an_unknown_name_is_exit_code_2_with_close_matches(command: str, downloader: Any) -> None:
    result = invoke(command, "peom")
    assert result.exit_code == 2
    assert "did you mean 'poem'?" in result.stderr
    assert downloader.commands == []


def test_the_shipped_manifest_lists() -> None:
    assert "fashion-mnist" in invoke("list").output
    assert len(json.loads(invoke("list", "--json").output)) > 40
