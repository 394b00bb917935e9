"""Labelled texts: read, told apart, split without a shared text; words counted and laid in rows."""

import csv
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.data.text.labels import LabelledTexts, labelled, read_labelled, read_orange
from windeye.data.text.words import Vocabulary, rows_of, words_of


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_of_pairs(tmp_path):
    found = read_labelled(written(tmp_path / "nli.tsv", 'no\tA "cat".\tA dog.', "", "yes\tÉté\tSummer"))
    assert found == LabelledTexts(('A "cat".', "Été"), (0, 1), ("no", "yes"), ("A dog.", "Summer"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a\tb", "c"], "line 2 has 1 columns"),
        (["a\tb\tc", "a\tb"], "line 2 has 2 columns"),
        (["a\tb\tc\td"], "line 1 has 4 columns"),
        ([""], "has no lines"),
    ],
)
def test_a_file_with_other_lines_is_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(written(tmp_path / "x.tsv", *lines))


def test_an_orange_table_is_read_past_its_three_headers_whatever_the_size_of_a_field(tmp_path):
    long = "word " * 40_000
    path = written(tmp_path / "x.tab", "Category\tText", "d\tstring", "class\t", f"a\t{long}", "", "b\tshort")
    before = csv.field_size_limit()
    assert read_orange(path) == [("a", long), ("b", "short")]
    assert csv.field_size_limit() == before


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_a_split_is_balanced_and_shares_no_text(labels, train, test, seed):
    whole = LabelledTexts(tuple(map(str, range(len(labels)))), tuple(labels), ("a", "b", "c"), tuple("x" * len(labels)))
    if min(Counter(labels)[label] for label in range(3)) < train + test:
        with pytest.raises(ValueError, match="but train and test take"):
            whole.split(3 * train, 3 * test, seed=seed)
        return
    parts = whole.split(3 * train, 3 * test, seed=seed)
    assert parts == whole.split(3 * train, 3 * test, seed=seed)
    for part, each in zip(parts, (train, test), strict=True):
        assert Counter(part.labels) == Counter({label: each for label in range(3) if each})
        assert all(labels[int(text)] == label for text, label in zip(part.texts, part.labels, strict=True))
    assert not set(parts[0].texts) & set(parts[1].texts)


def test_docstrings_are_always_there_each_once_and_in_one_class():
    found = labelled("docstrings", offline=True)
    assert found.classes == ("interfaces", "networks")
    assert min(Counter(found.labels).values()) > 300
    told = [tuple(words_of(text)) for text in found.texts]
    assert len(set(told)) == len(told)
    assert all(told)


def test_words_are_told_as_they_are_read():
    assert words_of("Ünder_score  3.14 x2 'quoted' rock'n'roll") == [
        "ünder", "score", "qqq", ".", "qqq", "x", "qqq", "'", "quoted", "'", "rock'n'roll",
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=9), max_size=6), st.integers(1, 4))
def test_a_vocabulary_counts_every_word_of_its_texts(texts, least):
    vocabulary = Vocabulary.of(texts, least)
    counted = Counter(word for text in texts for word in text)
    assert sum(vocabulary.counts) == sum(counted.values())
    assert dict(zip(vocabulary.words[2:], vocabulary.counts[2:], strict=True)) == {
        word: count for word, count in counted.items() if count >= least
    }
    assert list(vocabulary.counts[2:]) == sorted(vocabulary.counts[2:], reverse=True)
    for text in texts:
        back = [vocabulary.words[number] for number in vocabulary.numbers(text)]
        assert back == [word if counted[word] >= least else "<unknown>" for word in text]


def test_rows_are_padded_on_the_right_and_cut_where_too_long():
    rows, lengths = rows_of([[3, 4], [5], [6, 7, 8, 9]], longest=3)
    assert torch.equal(rows, torch.tensor([[3, 4, 0], [5, 0, 0], [6, 7, 8]]))
    assert lengths.tolist() == [2, 1, 3]
    with pytest.raises(ValueError, match=r"texts \[1\] have no words"):
        rows_of([[3], []])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labelled("films"), r"name must be one of \('tweets', 'newsgroups', 'docstrings'\), got 'films'"),
        (lambda: LabelledTexts(("a",), (0, 1), ("x", "y")), "must be equally many, got 1, 2, 0"),
        (lambda: LabelledTexts(("a",), (2,), ("x", "y")), r"labels must be places in 2 classes, got \[2\]"),
        (lambda: Vocabulary.of([], 0), "least must be at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
