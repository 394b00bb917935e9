"""Texts: read from their odd formats, split without leaks, cut into windows fairly; BPE loses nothing."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from windeye.data.sequences import IGNORED
from windeye.data.text import CORPORA, Text, corpus, decode, encode, load_bpe, train_bpe
from windeye.data.text.corpora import python_sources, read_bible, read_novels
from windeye.data.text.windows import random_windows

UNLIKELY = 1e-4


def unix_compress(text: bytes) -> bytes:
    """A valid stream of Unix compress that only holds 9-bit literals; short enough never to need a tenth bit."""
    assert len(text) < 250
    bits = sum(byte << 9 * i for i, byte in enumerate(text))
    return b"\x1f\x9d\x90" + bits.to_bytes((9 * len(text) + 7) // 8, "little")


def r_vector(*lines: bytes | None) -> bytes:
    head = b"X\n" + struct.pack(">IIII", 3, 0x040201, 0x030500, 5) + b"UTF-8" + struct.pack(">II", 16, len(lines))
    body = b"".join(struct.pack(">Ii", 0x00040009, -1 if s is None else len(s)) + (s or b"") for s in lines)
    return head + body


def r_database(*blocks: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(block)) + zlib.compress(block) for block in blocks)


class TestCorpora:
    def test_help_topics_are_always_there(self):
        text = corpus("pydoc")
        assert text.dtype == torch.uint8
        assert len(text) > 300_000
        assert b"assert_stmt" in bytes(text.tolist())

    def test_sources_come_in_the_order_of_their_paths_without_packages(self, tmp_path):
        for name in ("b.py", "a/c.py", "site-packages/d.py", "e.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        assert python_sources(tmp_path) == b"a/c.py\nb.py"

    def test_novels_are_read_from_rs_database(self):
        database = r_database(r_vector(b"EMMA", b"", b"handsome, clever"), r_vector(None, b"PERSUASION"))
        assert read_novels(database) == b"EMMA\n\nhandsome, clever\n\n\nPERSUASION"
        with pytest.raises(ValueError, match="not an R serialisation of version 3"):
            read_novels(r_database(b"A\n" + r_vector(b"x")[2:]))
        with pytest.raises(ValueError, match="not a vector of strings: R type 14"):
            read_novels(r_database(r_vector().replace(b"\0\0\0\x10", b"\0\0\0\x0e")))

    def test_the_bible_is_read_from_its_compressed_file(self):
        verses = b"Ge1:1 In the beginning\nGe1:2 And the earth\n"
        data = b"EC02Compressed Data File" + bytes(60) + unix_compress(b"Holy Bible\n" + verses)
        assert read_bible(data) == verses

    def test_a_damaged_bible_is_refused(self, monkeypatch):
        with pytest.raises(ValueError, match="no compressed stream in the Bible's data file"):
            read_bible(b"EC02")
        with pytest.raises(ValueError, match="damaged"):
            read_bible(b"EC02\x1f\x9d\xff" + b"\xff" * 9)
        monkeypatch.setenv("PATH", "")
        with pytest.raises(RuntimeError, match="needs the program gzip"):
            read_bible(unix_compress(b"x"))

    def test_assets_are_read_from_the_cache(self, declare, cache: Path):
        def put(asset: str, file: str, content: bytes) -> None:
            declare(asset, files={file: ""})
            (cache / asset).mkdir(parents=True)
            (cache / asset / file).write_bytes(content)

        put("jane-austen", "Rdata.rdb", r_database(r_vector(b"EMMA")))
        put("king-james-bible", "bible.data", unix_compress(b"Holy Bible\nGe1:1 In\n"))
        put("gcide", "gcide.dict.dz", zlib.compress(b"Aardvark", wbits=31))
        read = {name: bytes(corpus(name, offline=True).tolist()) for name in ("austen", "kjv", "gcide")}
        assert read == {"austen": b"EMMA", "kjv": b"Ge1:1 In\n", "gcide": b"Aardvark"}

    def test_unknown_names_are_refused(self):
        with pytest.raises(ValueError, match=re.escape(f"name must be one of {tuple(CORPORA)}, got 'enwik8'")):
            corpus("enwik8")


class TestSplit:
    @given(size=st.integers(40, 300), stretches=st.integers(1, 4), share=st.floats(0.1, 0.9))
    def test_the_parts_are_the_text(self, size, stretches, share):
        text = Text.split(torch.arange(size), share, stretches)
        assert len(text.train) == len(text.test) == stretches
        joined = [part for pair in zip(text.train, text.test, strict=True) for part in pair]
        assert torch.equal(torch.cat(joined), torch.arange(size))
        assert all(len(part) for part in joined)
        held_out = sum(len(part) for part in text.test)
        assert abs(held_out - share * size) <= stretches

    def test_bad_input(self):
        tokens = torch.arange(20)
        with pytest.raises(ValueError, match=r"held_out must be a share in \(0, 1\), got 1.0"):
            Text.split(tokens, 1.0)
        with pytest.raises(ValueError, match="stretch of 5 tokens leaves a part empty; take fewer stretches than 4"):
            Text.split(tokens, 0.05, stretches=4)
        with pytest.raises(ValueError, match="stretches must be at least 1, got 0"):
            Text.split(tokens, stretches=0)


class TestWindows:
    @given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5), length=st.integers(0, 9))
    def test_windows_are_whole_and_stay_in_their_stretch(self, sizes, length):
        stretches = [1000 * i + torch.arange(size) for i, size in enumerate(sizes)]
        if length and max(sizes) < length:
            with pytest.raises(ValueError, match=f"a window of {length} tokens does not fit"):
                random_windows(stretches, length, 5, torch.Generator())
            return
        windows = random_windows(stretches, length, 5, torch.Generator())
        assert windows.shape == (5, length)
        assert (windows.diff(dim=1) == 1).all()

    def test_every_place_of_every_stretch_is_as_likely(self):
        stretches = [torch.arange(12), 100 + torch.arange(2), 200 + torch.arange(7)]
        starts = random_windows(stretches, 3, 8000, torch.Generator().manual_seed(0))[:, 0]
        assert set(starts.tolist()) == {*range(10), *range(200, 205)}
        assert chisquare(starts.unique(return_counts=True)[1].tolist()).pvalue > UNLIKELY

    def test_targets_are_the_next_tokens_of_the_same_split(self):
        windows = Text.split(torch.arange(100), 0.2, stretches=2).windows(4)
        for split, allowed in (("train", {*range(40), *range(50, 90)}), ("test", {*range(40, 50), *range(90, 100)})):
            tokens, targets = windows.sample(50, seed=1, split=split)
            assert torch.equal(targets, tokens + 1)
            assert set(targets.flatten().tolist()) | set(tokens.flatten().tolist()) <= allowed
        assert torch.equal(windows.sample(5, seed=1).tokens, windows.sample(5, seed=1).tokens)
        assert not torch.equal(windows.sample(5, seed=1).tokens, windows.sample(5, seed=2).tokens)

    def test_bytes_become_int64(self):
        batch = Text.split(torch.arange(100, dtype=torch.uint8)).windows(4).sample(2, seed=0)
        assert {batch.tokens.dtype, batch.targets.dtype} == {torch.int64}

    @given(
        sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
        length=st.integers(1, 9),
        batch_size=st.integers(1, 5),
    )
    def test_a_cover_judges_every_token_once(self, sizes, length, batch_size):
        parts = tuple(1000 * i + torch.arange(size) for i, size in enumerate(sizes))
        judged = []
        for tokens, targets in Text((), parts).windows(length).cover(batch_size):
            assert tokens.shape[0] <= batch_size
            kept = targets != IGNORED
            assert torch.equal(targets[kept], tokens[kept] + 1)
            judged += targets[kept].tolist()
        assert judged == [1000 * i + j for i, size in enumerate(sizes) for j in range(1, size)]

    def test_bad_input(self):
        text = Text.split(torch.arange(100))
        with pytest.raises(ValueError, match="length must be at least 1, got 0"):
            text.windows(0)
        with pytest.raises(ValueError, match="a window of 100 tokens does not fit: the longest stretch of text has 95"):
            text.windows(99).sample(1, seed=0)
        with pytest.raises(ValueError, match="split must be one of"):
            text.windows(9).sample(1, seed=0, split="valid")


SENTENCES = "the cat sat on the mat\nthe hat sat on the cat\n" * 50


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(SENTENCES, 300)


class TestBPE:
    @given(text=st.text(max_size=60))
    def test_any_text_is_read_back_as_it_was(self, tokenizer, text):
        assert decode(tokenizer, encode(tokenizer, text)) == text

    def test_frequent_words_become_single_tokens(self, tokenizer):
        tokens = encode(tokenizer, SENTENCES)
        assert tokens.dtype == torch.int32
        assert len(tokens) < len(SENTENCES) / 3
        assert int(tokens.max()) < tokenizer.get_vocab_size() <= 300
        assert len(encode(tokenizer, " sat")) == 1

    def test_bytes_and_strings_are_the_same_text(self, tokenizer):
        as_bytes = torch.tensor(list(SENTENCES.encode()), dtype=torch.uint8)
        assert torch.equal(encode(tokenizer, as_bytes), encode(tokenizer, SENTENCES))
        assert train_bpe(as_bytes, 300).to_str() == tokenizer.to_str()

    def test_256_tokens_are_the_bytes(self):
        tokenizer = train_bpe(SENTENCES, 256)
        assert len(encode(tokenizer, "naïve")) == len("naïve".encode())

    def test_long_texts_go_in_blocks_and_lose_nothing(self, tokenizer):
        text = (SENTENCES * 60) + "no newline at the end " * 9000
        assert decode(tokenizer, encode(tokenizer, text)) == text

    def test_no_text_is_no_token(self, tokenizer):
        assert encode(tokenizer, "").shape == (0,)

    def test_saved_and_loaded_it_is_the_same(self, tokenizer, tmp_path):
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        again = load_bpe(tmp_path / "tokenizer.json")
        assert torch.equal(encode(again, SENTENCES), encode(tokenizer, SENTENCES))
        (tmp_path / "other.json").write_text("{}")
        with pytest.raises(ValueError, match=r"other\.json is not a tokenizer\.json"):
            load_bpe(tmp_path / "other.json")
        with pytest.raises(FileNotFoundError):
            load_bpe(tmp_path / "nothing.json")

    def test_without_the_library_the_error_names_the_extra(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(ImportError, match=r"windeye\[hf\]"):
            train_bpe("text", 300)
        with pytest.raises(ImportError, match=r"windeye\[hf\]"):
            load_bpe(tmp_path / "tokenizer.json")

    def test_fewer_tokens_than_bytes_are_refused(self):
        with pytest.raises(ValueError, match="vocabulary must be at least 256, got 255"):
            train_bpe("text", 255)
