"""Additive (Bahdanau) attention pooling: one score per token, a softmax over real tokens, the mean of their vectors."""

from __future__ import annotations

from typing import Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count


class AdditiveAttention(nn.Module):
    """``s_t = v . tanh(W h_t + b [+ W_q q])``, ``a = softmax(s)`` over real tokens, ``out = sum_t a_t h_t``.

    Scores and pooling are methods of their own, so that whatever acts on scores, as `windeye.nn.perturbation` does,
    stands between the two.

    Args:
        dim: channels of the tokens.
        hidden: channels inside the tanh.
        query_dim: channels of one query vector per sequence, for tasks about a pair of texts; None: no query.
        dropout: share of attention weights that is dropped in training, as in softmax attention.

    Raises:
        ValueError, TypeError: sizes do not fit.

    Source: attention-perturbation spec; v has no bias. Equal to the official layer, see
    tests/models/test_attentive_golden.py.

    Example:
        >>> layer = AdditiveAttention(16, hidden=8)
        >>> tokens = torch.randn(2, 5, 16)
        >>> padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        >>> out, weights = layer(tokens, padding=padding, return_weights=True)
        >>> out.shape, weights[1, 3:]
        (torch.Size([2, 16]), tensor([0., 0.], grad_fn=<SliceBackward0>))
    """

    def __init__(self, dim: int, hidden: int, query_dim: int | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        self.query_dim = None if query_dim is None else check_count("query_dim", query_dim)
        self.key_proj = nn.Linear(dim, check_count("hidden", hidden))
        self.query_proj = None if query_dim is None else nn.Linear(query_dim, hidden, bias=False)
        self.score_proj = nn.Linear(hidden, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def scores(
        self, tokens: Float[Tensor, "batch n dim"], query: Float[Tensor, "batch query_dim"] | None = None
    ) -> Float[Tensor, "batch n"]:
        """The scores before the softmax, of padded tokens, too.

        Raises:
            ValueError: a query is given where the layer has none, or missing where it has one; wrong sizes.
        """
        if tokens.dim() != 3 or tokens.shape[-1] != self.dim:
            raise ValueError(f"tokens must be [batch, n, dim {self.dim}], got shape {tuple(tokens.shape)}")
        if (query is None) != (self.query_proj is None):
            raise ValueError(
                "query is missing: this layer was built with query_dim"
                if query is None
                else "query is given but this layer was built without query_dim"
            )
        inside = self.key_proj(tokens)
        if query is not None and self.query_proj is not None:
            if query.shape != (tokens.shape[0], self.query_dim):
                raise ValueError(
                    f"query must be [batch {tokens.shape[0]}, query_dim {self.query_dim}], got {tuple(query.shape)}"
                )
            inside = inside + self.query_proj(query)[:, None]
        return self.score_proj(inside.tanh())[..., 0]

    def pool(
        self,
        tokens: Float[Tensor, "batch n dim"],
        weights: Float[Tensor, "batch n"],
        padding: Bool[Tensor, "batch n"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """``sum_t a_t h_t``; what stands at padded places never enters, be it NaN."""
        if padding is not None:
            tokens = tokens.masked_fill(padding[..., None], 0)
        return torch.einsum("bn,bnd->bd", self.dropout(weights), tokens)

    @overload
    def forward(
        self, tokens: Tensor, *, padding: Tensor | None = ..., query: Tensor | None = ...,
        return_weights: Literal[False] = ...,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def forward(
        self, tokens: Tensor, *, padding: Tensor | None = ..., query: Tensor | None = ...,
        return_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    def forward(
        self,
        tokens: Float[Tensor, "batch n dim"],
        *,
        padding: Bool[Tensor, "batch n"] | None = None,
        query: Float[Tensor, "batch query_dim"] | None = None,
        return_weights: bool = False,
    ) -> Float[Tensor, "batch dim"] | tuple[Tensor, Tensor]:
        """Pool a batch of sequences.

        Args:
            tokens: the sequences.
            padding: True where there is no token; a sequence of nothing but padding gives zeros.
            query: one vector per sequence.
            return_weights: also return the attention weights, [batch, n].

        Raises:
            ValueError: shapes do not fit; names the argument and the sizes.
        """
        weights = masked_softmax(self.scores(tokens, query), padding)
        out = self.pool(tokens, weights, padding)
        return (out, weights) if return_weights else out


def masked_softmax(
    scores: Float[Tensor, "*batch n"], padding: Bool[Tensor, "*batch n"] | None = None
) -> Float[Tensor, "*batch n"]:
    """Softmax over the last axis without the padded places, which are zero; rows of nothing but padding are zeros.

    Raises:
        ValueError, TypeError: padding of another shape, or not boolean.

    Example:
        >>> masked_softmax(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[False, False, True]]))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    if padding is None:
        return scores.softmax(-1)
    if padding.dtype != torch.bool:
        raise TypeError(f"padding must be boolean, True where there is no token, got {padding.dtype}")
    if padding.shape != scores.shape:
        raise ValueError(f"padding must have the shape of scores {tuple(scores.shape)}, got {tuple(padding.shape)}")
    # The lowest finite number instead of -inf: a row of nothing but padding stays free of NaN, also in its gradient.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(padding, lowest).softmax(-1).masked_fill(padding, 0)
