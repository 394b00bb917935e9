"""Byte-level BPE through the ``tokenizers`` library: trained on a text, saved and loaded as its ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from windeye.data.sequences import check_integer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256
BLOCK = 1 << 16


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("BPE needs the tokenizers library: pip install 'windeye[hf]'") from error
    return tokenizers


def train_bpe(text: UInt8[Tensor, " bytes"] | str, vocabulary: int) -> Tokenizer:
    """Learn merges of frequent neighbours until there are ``vocabulary`` tokens, or nothing left to merge.

    The 256 bytes are tokens from the start, so every text can be written and read back.

    Raises:
        ValueError, TypeError: a vocabulary below 256. ImportError: without `tokenizers`; names the extra.

    Example:
        >>> tokenizer = train_bpe("the cat and the hat and the bat " * 20, 300)
        >>> decode(tokenizer, encode(tokenizer, "the rat"))
        'the rat'
        >>> len(encode(tokenizer, "the cat")) < len("the cat")
        True
    """
    check_integer("vocabulary", vocabulary, BYTES)
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_blocks(text), trainer)
    return tokenizer


def load_bpe(path: Path | str) -> Tokenizer:
    """A tokenizer that was written with ``tokenizer.save(path)``, or any other ``tokenizer.json``.

    Raises:
        FileNotFoundError: nothing there. ValueError: not a tokenizer's file. ImportError: without `tokenizers`.
    """
    library = _tokenizers()
    content = Path(path).read_text(encoding="utf-8")
    try:
        return library.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is not a tokenizer.json: {error}") from error


def encode(tokenizer: Tokenizer, text: UInt8[Tensor, " bytes"] | str) -> Int[Tensor, " tokens"]:
    """Token numbers of a text, int32. Long texts are encoded in blocks that end with a line."""
    pieces = tokenizer.encode_batch_fast(list(_blocks(text)), add_special_tokens=False)
    return torch.cat([torch.zeros(0, dtype=torch.int32), *(torch.tensor(p.ids, dtype=torch.int32) for p in pieces)])


def decode(tokenizer: Tokenizer, tokens: Int[Tensor, " tokens"]) -> str:
    """The text of token numbers."""
    return tokenizer.decode(tokens.tolist(), skip_special_tokens=False)


def _blocks(text: UInt8[Tensor, " bytes"] | str) -> Iterator[str]:
    """About equal pieces that end with a line; together they are the text (bytes that are not UTF-8 are replaced)."""
    whole = text if isinstance(text, str) else bytes(text.numpy()).decode("utf-8", errors="replace")
    begin = 0
    while begin < len(whole):
        end = whole.find("\n", begin + BLOCK) + 1 or len(whole)
        yield whole[begin:end]
        begin = end
