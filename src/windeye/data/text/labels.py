"""Labelled texts: from a file of one's own, and real collections by name."""

from __future__ import annotations

import ast
import csv
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from windeye.data.assets import get
from windeye.data.sequences import derived_seed
from windeye.data.text.words import words_of


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with the numbers of their classes.

    Args:
        texts: one string each.
        labels: places in ``classes``.
        classes: names.
        seconds: a second text each, in tasks about pairs (a question, a hypothesis); empty otherwise.

    Raises:
        ValueError: texts, labels and seconds are not equally many, or a label is no place in classes.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    seconds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.texts) or len(self.seconds) not in (0, len(self.texts)):
            raise ValueError(
                f"texts, labels and seconds must be equally many, got {len(self.texts)}, {len(self.labels)}, "
                f"{len(self.seconds)}"
            )
        if wrong := {label for label in self.labels if not 0 <= label < len(self.classes)}:
            raise ValueError(f"labels must be places in {len(self.classes)} classes, got {sorted(wrong)[:5]}")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int]) -> LabelledTexts:
        """The texts at some places, in their order."""
        texts, labels = (tuple(part[place] for place in places) for part in (self.texts, self.labels))
        seconds = tuple(self.seconds[place] for place in places) if self.seconds else ()
        return LabelledTexts(texts, labels, self.classes, seconds)  # type: ignore[arg-type]

    def split(self, train: int, test: int, *, seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
        """Two parts drawn at random that share no text, each with equally many texts of every class.

        Raises:
            ValueError: a class has too few texts.

        Example:
            >>> whole = LabelledTexts(tuple("abcdef"), (0, 0, 0, 1, 1, 1), ("x", "y"))
            >>> train, test = whole.split(4, 2)
            >>> sorted(train.labels), sorted(test.labels), sorted(train.texts + test.texts)
            ([0, 0, 1, 1], [0, 1], ['a', 'b', 'c', 'd', 'e', 'f'])
        """
        each = [count // len(self.classes) for count in (train, test)]
        generator = torch.Generator().manual_seed(derived_seed("labelled", seed))
        order = torch.randperm(len(self), generator=generator).tolist()
        parts: tuple[list[int], list[int]] = ([], [])
        for label, name in enumerate(self.classes):
            own = [place for place in order if self.labels[place] == label]
            if len(own) < sum(each):
                raise ValueError(
                    f"class {name!r} has {len(own)} texts, but train and test take {each[0]} and {each[1]}"
                )
            parts[0].extend(own[: each[0]])
            parts[1].extend(own[each[0] : sum(each)])
        return self.take(parts[0]), self.take(parts[1])


def read_labelled(path: Path | str) -> LabelledTexts:
    """Labelled texts from a file of lines ``label <tab> text`` or ``label <tab> text <tab> second text``.

    No header, no quoting, UTF-8; classes are numbered in alphabetical order. Empty lines are passed over.

    Raises:
        FileNotFoundError: nothing there. ValueError: a line with another number of columns; says which.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "films.tsv"
        >>> _ = path.write_text("good\\tA joy.\\nbad\\tSo dull.\\n")
        >>> read_labelled(path)
        LabelledTexts(texts=('A joy.', 'So dull.'), labels=(1, 0), classes=('bad', 'good'), seconds=())
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no lines")
    columns = len(rows[0][1])
    for number, row in rows:
        if len(row) != columns or columns not in (2, 3):
            raise ValueError(
                f"{path}, line {number} has {len(row)} columns; every line must be label, text or label, text, second "
                "text, separated by tabs"
            )
    return _numbered([(row[0], *row[1:]) for _, row in rows])


@lru_cache(maxsize=4)
def labelled(name: str, *, offline: bool = False) -> LabelledTexts:
    """A real collection of two classes, without copies of a text.

    Args:
        name: one of `COLLECTIONS`: "tweets" (negative against positive tweets on airlines and other matters),
            "newsgroups" (posts on baseball against hockey, words only), "docstrings" (first paragraphs from Python's
            own library: windows and editors against networks and protocols; needs no download, depends on the version
            of Python).
        offline: never download.

    Raises:
        ValueError: unknown name. windeye.data.AssetUnavailable: the asset could not be brought here.

    Example:
        >>> sorted(COLLECTIONS)
        ['docstrings', 'newsgroups', 'tweets']
    """
    if name not in COLLECTIONS:
        raise ValueError(f"name must be one of {tuple(COLLECTIONS)}, got {name!r}")
    return COLLECTIONS[name](offline)


def _tweets(offline: bool) -> LabelledTexts:
    content = get("tweet-sentiment", offline=offline).path.read_text(encoding="utf-8", errors="replace")
    rows = csv.DictReader(content.splitlines())
    return _distinct([(row["sentiment"], row["text"]) for row in rows if row["sentiment"] != "neutral"])


def _newsgroups(offline: bool) -> LabelledTexts:
    folder = get("orange-texts", offline=offline)
    groups = {"rec.sport.baseball": "baseball", "rec.sport.hockey": "hockey"}
    parts = [read_orange(folder.path / f"20newsgroups-{part}.tab") for part in ("train", "test")]
    rows = [(groups[label], text) for part in parts for label, text in part if label in groups]
    return _distinct(rows)


def read_orange(path: Path) -> list[tuple[str, str]]:
    """Labels and texts of an Orange table: three header lines (names, types, roles), the class in the first column."""
    # A post is one field, and some are longer than csv's limit.
    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.reader(file, delimiter="\t")]
    finally:
        csv.field_size_limit(before)
    return [(row[0], row[1]) for row in rows[3:] if len(row) == 2]


TOPICS = {
    "interfaces": ("tkinter", "idlelib", "turtledemo", "curses"),
    "networks": ("asyncio", "email", "http", "urllib", "logging", "multiprocessing", "unittest", "xml"),
}
"""Packages of the standard library behind the classes of "docstrings"."""


def _docstrings(_: bool) -> LabelledTexts:
    library = Path(sysconfig.get_path("stdlib"))
    rows = [(topic, text) for topic, names in TOPICS.items() for name in names for text in _documented(library / name)]
    return _distinct(rows)


def _documented(package: Path) -> Iterator[str]:
    """First paragraphs of all docstrings below a folder, in the order of its files."""
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and text.strip():
                    yield " ".join(text.strip().partition("\n\n")[0].split())


COLLECTIONS: Mapping[str, Callable[[bool], LabelledTexts]] = {
    "tweets": _tweets,
    "newsgroups": _newsgroups,
    "docstrings": _docstrings,
}


def _distinct(rows: Sequence[tuple[str, str]]) -> LabelledTexts:
    """Every text once, told by its words; texts without words, and with two labels, are left out."""
    labels: dict[tuple[str, ...], set[str]] = {}
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    for label, text in rows:
        words = tuple(words_of(text))
        labels.setdefault(words, set()).add(label)
        first.setdefault(words, (label, text))
    return _numbered([row for words, row in first.items() if words and len(labels[words]) == 1])


def _numbered(rows: Sequence[tuple[str, ...]]) -> LabelledTexts:
    classes = sorted({row[0] for row in rows})
    labels = tuple(classes.index(row[0]) for row in rows)
    seconds = tuple(row[2] for row in rows if len(row) > 2)
    return LabelledTexts(tuple(row[1] for row in rows), labels, tuple(classes), seconds)
