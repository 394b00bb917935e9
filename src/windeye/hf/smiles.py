"""Reactions as tokens: the rule by which models of chemistry cut SMILES strings."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TOKENS = r"\[[^\]]+\]|Br|Cl|>>|%[0-9]{2}|."
"""An atom in brackets, an element of two letters, the arrow of a reaction, a ring number of two digits, or one
character."""


def smiles_tokenizer(vocabulary: Path, longest: int = 512) -> PreTrainedTokenizerFast:
    """A tokenizer of transformers for SMILES: atoms, bonds, brackets and ring numbers are one token each, in between
    [CLS] and [SEP]; decoding gives the string back.

    Args:
        vocabulary: a text file with one token a line.
        longest: tokens that the model has positions for.

    Source: the rule of the molecular transformer, with the vocabulary file of the model.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "vocab.txt"
        >>> _ = file.write_text("[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\n[MASK]\\nC\\n[NH4+]\\nCl\\n>>\\n")
        >>> smiles_tokenizer(file).tokenize("C[NH4+].Cl>>CCl")
        ['C', '[NH4+]', '[UNK]', 'Cl', '>>', 'C', 'Cl']
    """
    places = {token: place for place, token in enumerate(vocabulary.read_text().splitlines())}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKENS), "isolated")
    ends = [(token, places[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=longest, unk_token="[UNK]", pad_token="[PAD]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
