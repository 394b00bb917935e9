"""Attention of all tokens to all, with padding: what some pools do before they pool."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_divides
from windeye.nn.pools.tokens import Tokens
from windeye.ops import attend


class SelfAttention(nn.Module):
    """``proj(concat_h softmax(q_h k_h^T / sqrt(head_dim)) v_h)``, where only ``proj`` has a bias; memory linear in the
    tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        check_divides(heads, dim, "dim")
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self.qkv(tokens.x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return self.proj(attend(query, key, value, key_padding=tokens.padding).flatten(2))
