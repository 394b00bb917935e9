"""Efficient probing: learned queries straight against the tokens, each of which pools a slice of the values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_count
from windeye.nn.pools.pool import TokenPool, token_pool
from windeye.nn.pools.reading import Reading, of_heads
from windeye.nn.pools.tokens import Tokens

QUERY_STD = 0.02


@token_pool("ep")
class EfficientPool(TokenPool):
    """``z = concat_j softmax(u_j x^T / sqrt(dim)) (x W^T)_j``, where query ``u_j`` pools the ``j``-th slice of the
    values ``x W^T``.

    No map of queries or keys, no bias, and no map of the output. Values are pooled before they are made: each query's
    mean of tokens goes through its own rows of ``W`` (see `windeye.nn.pools.reading`), so that a token costs
    ``2 queries`` products of its width and not ``dim + queries``.

    Args:
        dim: channels of the tokens.
        queries: how many; each pools ``dim / reduction / queries`` channels.
        reduction: how many times fewer channels go out than come in.

    Raises:
        ValueError: ``reduction`` does not divide ``dim``, or ``queries`` does not divide what goes out.

    Differs from: the published text, which speaks of a mean over queries; its code joins their slices, as here.

    Source: efficient-probing spec; equal to the official module, see tests/nn/pools/test_golden.py.

    Example:
        >>> pool = EfficientPool(768, queries=32)
        >>> x = torch.randn(2, 14, 14, 768)
        >>> pool(x).shape, pool.maps(x).shape, sum(p.numel() for p in pool.parameters())
        (torch.Size([2, 768]), torch.Size([2, 32, 14, 14]), 614400)
    """

    attention_site = True

    def __init__(self, dim: int, queries: int = 32, *, reduction: int = 1) -> None:
        check_count("dim", dim)
        check_count("reduction", reduction)
        check_count("queries", queries)
        if dim % reduction:
            raise ValueError(f"reduction {reduction} must divide dim {dim}")
        out_dim = dim // reduction
        if out_dim % queries:
            fitting = [count for count in range(1, out_dim + 1) if out_dim % count == 0]
            raise ValueError(
                f"queries {queries} must divide the {out_dim} channels that go out "
                f"(dim {dim} over reduction {reduction}); {', '.join(map(str, fitting))} do"
            )
        super().__init__(dim, out_dim)
        self.value = nn.Linear(dim, out_dim, bias=False)
        self.queries = nn.Parameter(torch.randn(queries, dim) * QUERY_STD)

    def reading(self, tokens: Tokens) -> Reading:
        return Reading.of(self.queries[None, None], tokens.x, tokens.x, self.dim**-0.5, tokens)

    def pool(self, tokens: Tokens) -> Float[Tensor, "batch out_dim"]:
        return of_heads(self.reading(tokens).found(self), self.value.weight)[:, 0]

    def extra_repr(self) -> str:
        return f"{self.dim}, queries={self.queries.shape[0]}, reduction={self.dim // self.out_dim}"
