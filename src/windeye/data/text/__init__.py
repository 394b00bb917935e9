"""Byte-level texts, split into train and test by contiguous stretches, as windows of any length; BPE on request.

Conversations keep who said what: `render` and `label_tokens` label every character and token.

>>> from windeye.data.text import Text, corpus
>>> windows = Text.split(corpus("pydoc"), held_out=0.05, stretches=10).windows(256)
>>> windows.sample(32, seed=0).tokens.shape
torch.Size([32, 256])
"""

from windeye.data.text.bpe import decode, encode, load_bpe, train_bpe
from windeye.data.text.conversation import Labelled, RoleTags, chat_template, label_tokens, render
from windeye.data.text.corpora import CORPORA, corpus
from windeye.data.text.dialogue_files import holds_answer, read_conversations, read_questions
from windeye.data.text.indicator import INDICATOR, add_indicator, mark
from windeye.data.text.labels import LabelledTexts, labelled, read_labelled
from windeye.data.text.windows import Text, Windows
from windeye.data.text.words import Vocabulary, rows_of, words_of

__all__ = [
    "CORPORA",
    "INDICATOR",
    "Labelled",
    "LabelledTexts",
    "RoleTags",
    "Text",
    "Vocabulary",
    "Windows",
    "add_indicator",
    "chat_template",
    "corpus",
    "decode",
    "encode",
    "holds_answer",
    "label_tokens",
    "labelled",
    "load_bpe",
    "mark",
    "read_conversations",
    "read_labelled",
    "read_questions",
    "render",
    "rows_of",
    "train_bpe",
    "words_of",
]
