"""Classifiers of texts that read through one attention: words, an encoder, additive attention, a linear answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.nn import AdditiveAttention
from windeye.nn.additive import masked_softmax
from windeye.nn.mixer import check_count

Encoder = Literal["bilstm", "words"]


@dataclass(frozen=True)
class AttentiveConfig:
    """Sizes of an `AttentiveClassifier`.

    Args:
        vocabulary: words; number 0 is padding.
        dim: channels of an embedding.
        hidden: units per direction of the LSTM, and channels inside the attention's tanh.
        answers: logits: 1 for two classes (a sigmoid is meant), else one per class.
        encoder: "bilstm" reads in both directions; "words" sees each word alone, ``tanh(W w_t + b)``.
        paired: texts come with a second one; its last states are the attention's query.
        dropout: share of attention weights dropped in training.
    """

    vocabulary: int
    dim: int = 300
    hidden: int = 128
    answers: int = 1
    encoder: Encoder = "bilstm"
    paired: bool = False
    dropout: float = 0.0


class Reading(NamedTuple):
    """What the encoder made of a batch: all that stands before the softmax."""

    states: Float[Tensor, "batch n channels"]
    scores: Float[Tensor, "batch n"]
    padding: Bool[Tensor, "batch n"]


class AttentiveClassifier(nn.Module):
    """``logits = W sum_t a_t h_t + b`` with ``a = softmax(scores)`` and ``h`` the states of an encoder.

    `read` gives states and scores, `answer` goes from scores to logits: what stands between the two may change the
    scores, watch them, or take the loss's gradient there.

    Raises:
        ValueError, TypeError: sizes do not fit, or an unknown encoder.

    Source: attention-perturbation spec; the default sizes are the published ones. Equal to the official network, see
    tests/models/test_attentive_golden.py.

    Example:
        >>> model = AttentiveClassifier(AttentiveConfig(vocabulary=50, dim=8, hidden=4))
        >>> tokens, lengths = torch.randint(1, 50, (3, 6)), torch.tensor([6, 2, 4])
        >>> model(tokens, lengths).shape
        torch.Size([3, 1])
        >>> states, scores, padding = model.read(model.embed(tokens), lengths)
        >>> scores.shape, padding.sum(1)
        (torch.Size([3, 6]), tensor([0, 4, 2]))
    """

    def __init__(self, config: AttentiveConfig) -> None:
        super().__init__()
        if config.encoder not in ("bilstm", "words"):
            raise ValueError(f'encoder must be "bilstm" or "words", got {config.encoder!r}')
        self.config = config
        hidden, dim = check_count("hidden", config.hidden), check_count("dim", config.dim)
        channels = 2 * hidden
        self.embedding = nn.Embedding(check_count("vocabulary", config.vocabulary), dim, padding_idx=0)
        self.encoder = _encoder(config)
        self.query_encoder = _encoder(config) if config.paired else None
        query_dim = channels if config.paired else None
        self.attention = AdditiveAttention(channels, hidden, query_dim, dropout=config.dropout)
        self.answers = nn.Linear(channels, check_count("answers", config.answers))

    def embed(self, tokens: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n dim"]:
        """The embeddings of words."""
        return self.embedding(tokens)

    def read(
        self,
        words: Float[Tensor, "batch n dim"],
        lengths: Int[Tensor, " batch"],
        query: Float[Tensor, "batch m dim"] | None = None,
        query_lengths: Int[Tensor, " batch"] | None = None,
    ) -> Reading:
        """States and scores of embedded texts with padding on the right.

        Args:
            words: embeddings.
            lengths: true words of each text, at least 1.
            query: embeddings of the second text, of a model that is ``paired``.
            query_lengths: its true words.

        Raises:
            ValueError: a length outside 1 .. n, or a second text that is missing or not expected.
        """
        check_lengths("lengths", lengths, words)
        if (query is None) != (self.query_encoder is None):
            raise ValueError(f"query is {'missing' if query is None else 'given'}, but paired={self.config.paired}")
        states = self.encoder(words, lengths)
        asked = None
        if query is not None and self.query_encoder is not None:
            if query_lengths is None:
                raise ValueError("query_lengths is missing; it says how many words each query has")
            check_lengths("query_lengths", query_lengths, query)
            asked = _ends(self.query_encoder(query, query_lengths), query_lengths)
        padding = torch.arange(words.shape[1], device=words.device) >= lengths[:, None].to(words.device)
        return Reading(states, self.attention.scores(states, asked), padding)

    def answer(
        self, reading: Reading, scores: Float[Tensor, "batch n"] | None = None, *, through_attention: bool = True
    ) -> Float[Tensor, "batch answers"]:
        """Logits from scores, those of the reading or others.

        With ``through_attention=False`` attention weights are constants for gradients, and only values count.
        """
        weights = masked_softmax(reading.scores if scores is None else scores, reading.padding)
        if not through_attention:
            weights = weights.detach()
        return self.answers(self.attention.pool(reading.states, weights, reading.padding))

    def forward(
        self,
        tokens: Int[Tensor, "batch n"],
        lengths: Int[Tensor, " batch"],
        query: Int[Tensor, "batch m"] | None = None,
        query_lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch answers"]:
        """Logits of texts of words; arguments as for `read`."""
        asked = None if query is None else self.embed(query)
        return self.answer(self.read(self.embed(tokens), lengths, asked, query_lengths))


class BidirectionalLSTM(nn.Module):
    """States of an LSTM from the first word on, beside those of another from each text's own last word back.

    Two single directions over padded rows, instead of one bidirectional LSTM over packed ones, which is the same
    function: torch has its fast kernel for that alone.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(dim, hidden, batch_first=True)
        self.back = nn.LSTM(dim, hidden, batch_first=True)

    def forward(
        self, words: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch n channels"]:
        """What stands at padding means nothing."""
        backward = _reversed(self.back(_reversed(words, lengths))[0], lengths)
        return torch.cat([self.onward(words)[0], backward], dim=-1)


class WordByWord(nn.Module):
    """``tanh(W w_t + b)``: no word knows of another."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, channels)

    def forward(
        self,
        words: Float[Tensor, "batch n dim"],
        lengths: Int[Tensor, " batch"],  # noqa: ARG002 - a word is a word wherever it stands
    ) -> Float[Tensor, "batch n channels"]:
        """States of single words."""
        return self.proj(words).tanh()


def _encoder(config: AttentiveConfig) -> nn.Module:
    if config.encoder == "words":
        return WordByWord(config.dim, 2 * config.hidden)
    return BidirectionalLSTM(config.dim, config.hidden)


def _reversed(tokens: Tensor, lengths: Tensor) -> Tensor:
    """The words of each text in the other order, padding left where it is."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    last = lengths.to(tokens.device)[:, None] - 1
    order = torch.where(places <= last, last - places, places)
    return tokens.gather(1, order[..., None].expand_as(tokens))


def _ends(states: Tensor, lengths: Tensor) -> Tensor:
    """Forward states of the last words beside backward states of the first."""
    forward, backward = states.chunk(2, dim=-1)
    rows = torch.arange(len(states), device=states.device)
    return torch.cat([forward[rows, lengths.to(states.device) - 1], backward[:, 0]], dim=-1)


def check_lengths(name: str, lengths: Tensor, words: Tensor) -> None:
    """Refuse texts without words, or longer than their row."""
    if lengths.shape != words.shape[:1]:
        raise ValueError(f"{name} must be [batch {words.shape[0]}], got shape {tuple(lengths.shape)}")
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= words.shape[1]:
        raise ValueError(f"{name} must be in 1 .. {words.shape[1]}, got {int(lengths.min())} to {int(lengths.max())}")
