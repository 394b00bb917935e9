"""Images, IDX files, texts and tables become arrays and strings; the shipped photograph is always there."""

from __future__ import annotations

import doctest
import gzip
import importlib
import struct
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from windeye.data import PHOTOGRAPHS, load, photograph
from windeye.data.assets import Asset
from windeye.data.assets.loaders import read_idx, read_image

Declare = Callable[..., Asset]


def put(cache: Path, name: str, content: bytes) -> None:
    (cache / "poem").mkdir(parents=True, exist_ok=True)
    (cache / "poem" / name).write_bytes(content)


def idx(array: np.ndarray, code: int) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(("dtype", "code"), [("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14)])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_round_trip(dtype: str, code: int, packed: bool, tmp_path: Path) -> None:
    array = np.arange(-3, 21).reshape(2, 3, 4).astype(dtype)
    content = idx(array, code)
    (tmp_path / "a").write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(tmp_path / "a")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_what_is_not_idx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PNG?")
    with pytest.raises(ValueError, match="a is not an IDX file"):
        read_idx(tmp_path / "a")


def test_several_files_load_as_a_dict(declare: Declare, cache: Path) -> None:
    declare(files={"images.gz": "", "labels": ""}, loader="idx")
    put(cache, "images.gz", gzip.compress(idx(np.zeros((2, 4, 4), "u1"), 8)))
    put(cache, "labels", idx(np.array([3, 1], "u1"), 8))
    loaded = load("poem", offline=True)
    assert loaded["images.gz"].shape == (2, 4, 4)
    assert loaded["labels"].tolist() == [3, 1]


def test_texts_load_plain_and_compressed(declare: Declare, cache: Path) -> None:
    declare(files={"poem.dz": ""}, loader="text")
    put(cache, "poem.dz", gzip.compress("Rösen\n".encode()))
    assert load("poem", offline=True) == "Rösen\n"
    declare(loader="text")
    put(cache, "poem.txt", "Rösen\n".encode("latin-1"))
    assert load("poem", offline=True) == "R\ufffdsen\n"


def test_tables_and_images_load(declare: Declare, cache: Path, tmp_path: Path) -> None:
    from PIL import Image

    declare(files={"t.csv.gz": ""}, loader="table")
    put(cache, "t.csv.gz", gzip.compress(b"1,2\n3,4\n"))
    np.testing.assert_array_equal(load("poem", offline=True), [[1, 2], [3, 4]])
    Image.new("L", (5, 3), 7).save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    assert image.shape == (3, 5, 3)
    assert image.dtype == np.uint8
    assert (image == 7).all()


def test_an_asset_without_loader_says_to_use_its_path(declare: Declare) -> None:
    declare()
    with pytest.raises(ValueError, match=r"asset 'poem' has no loader; use get\('poem'\)"):
        load("poem", offline=True)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_small_documented_and_natural(name: str) -> None:
    folder = resources.files("windeye.data") / "photographs"
    assert len((folder / f"{name}.jpg").read_bytes()) <= 90_000
    readme = (folder / "README.md").read_text()
    assert f"`{name}.jpg`" in readme
    assert "public domain" in readme or "CC0" in readme
    image = photograph(name)
    assert image.shape == (512, 512, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.std() > 30


def test_photographs_resize_and_refuse_bad_input() -> None:
    assert photograph(size=64).shape == (64, 64, 3)
    assert photograph(size=(32, 48)).shape == (32, 48, 3)
    with pytest.raises(ValueError, match=r"name must be one of \('astronaut',\), got 'dog'"):
        photograph("dog")
    with pytest.raises(ValueError, match="size must be at least 1"):
        photograph(size=(0, 4))


def test_without_pillow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"windeye\[vision\]"):
        photograph()
    with pytest.raises(ImportError, match=r"windeye\[vision\]"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "module", ["data", "data._photograph", "data.assets", "data.assets.archives", "data.assets.manifest"]
)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"windeye.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
