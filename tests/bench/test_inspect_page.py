"""The page on inspection shows what is committed."""

from pathlib import Path

import pytest

from windeye.bench import inspect_pages as pages

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_committed_numbers():
    """`make tables` writes it."""
    text = (ROOT / "docs" / "inspect.md").read_text()
    assert pages.inspection(text, *pages.committed(ROOT)) == text


@pytest.mark.parametrize("name", ["kinds", "tokens"])
def test_the_pictures_are_of_the_committed_numbers(name):
    seen, _ = pages.committed(ROOT)
    picture = {"kinds": pages.kinds_picture, "tokens": pages.tokens_picture}[name](seen)
    assert (ROOT / pages.IMAGES / f"inspect-{name}.svg").read_text() == picture.content


def test_rows_name_the_heads_of_the_largest_share():
    scores = [[0.1, 0.9, 0.2], [0.8, 0.3, 0.0]]
    _, rows = pages.kinds({"kinds": [["", "sink", ""], ["sink", "", ""]], "scores": {"sink": scores}})
    assert rows == [("sink", "rests on the first token", "2", "0.1 (0.90), 1.0 (0.80), 1.1 (0.30)")]
