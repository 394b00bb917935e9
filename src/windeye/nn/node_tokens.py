"""Tokens for things that have a text: an embedding without a row of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

PADDING = 0
"""The word that fills up short texts; no text may hold it."""


class NodeTokens(nn.Embedding):
    """Words ``0 .. vocab_size - 1``, and behind them nodes: node ``i`` is token ``vocab_size + i``.

    A node's embedding is the mean of the embeddings of the words of its text, now and after training: the vocabulary,
    and a head that is tied to it, do not grow with the graph, and nodes that were never seen have an embedding. It
    takes the place of ``embedding`` in a `windeye.models.DecoderLM`.

    Args:
        vocab_size, dim: of the words; word 0 is padding.
        texts: the words of each node.

    Raises:
        ValueError: a node without text, or a word outside ``1 .. vocab_size - 1``; names the node.

    Differs from: the official code, whose nodes start at this mean and are rows of their own from then on.
    Source: llm-graphs spec, prompt and node tokens.

    Example:
        >>> tokens = NodeTokens(10, 4, [[3], [1, 2]])
        >>> torch.allclose(tokens(torch.tensor([11])), tokens(torch.tensor([1, 2])).mean(0))
        True
    """

    texts: Tensor

    def __init__(self, vocab_size: int, dim: int, texts: Sequence[Sequence[int]]) -> None:
        super().__init__(vocab_size, dim)
        for node, words in enumerate(texts):
            if not words:
                raise ValueError(f"node {node} has no text")
            if min(words) <= PADDING or max(words) >= vocab_size:
                raise ValueError(f"the words of node {node} must be in 1 .. {vocab_size - 1}, got {list(words)}")
        longest = max(map(len, texts), default=1)
        padded = [[*words, *[PADDING] * (longest - len(words))] for words in texts]
        self.register_buffer("texts", torch.tensor(padded).reshape(-1, longest), persistent=False)

    def forward(self, ids: Int[Tensor, "*places"]) -> Float[Tensor, "*places dim"]:
        """The embedding of each token."""
        node = ids >= self.num_embeddings
        words = F.embedding(ids.masked_fill(node, PADDING), self.weight)
        texts = self.texts[ids[node] - self.num_embeddings]
        means = F.embedding_bag(texts, self.weight, mode="mean", padding_idx=PADDING)
        return words.masked_scatter(node[..., None], means.to(words.dtype))
