"""Causal softmax attention with its projections: over everything, or over a sliding window."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.memory import KeyValueState, State
from windeye.nn.mixer import SequenceMixer, check_count, check_divides, expect, positions
from windeye.nn.rotary import rotate
from windeye.nn.sited import sited
from windeye.patterns import Causal, Pattern, Sliding


class CausalAttention(SequenceMixer):
    """``out_proj(softmax(q k^T / sqrt(head_dim)) v)`` over the past, or over its last ``window`` tokens.

    Args:
        dim: channels in and out.
        heads: query heads; ``dim`` is a multiple of it.
        window: keys that a query sees, itself counted; the state stops growing after ``window - 1`` tokens. None sees
            all of the past.
        kv_heads: heads of keys and values, a divisor of ``heads``; default as many.
        rotary_base: base of the rotary positions (halves) on queries and keys; None leaves positions out.
        bias: whether the projections have biases.

    Differs from: the official code of Based, whose ``window_size`` of 256 is halved and counts keys before the query:
    128 of them and itself, which is ``window=129`` here.

    Raises:
        ValueError, TypeError: sizes do not fit.

    Source: based spec; equal to the official layer, see tests/nn/test_based_layers.py.

    Example:
        >>> import torch
        >>> layer = CausalAttention(32, heads=4, window=8)
        >>> out, state = layer(torch.randn(2, 50, 32), return_state=True)
        >>> state.key.shape
        torch.Size([2, 7, 4, 8])
    """

    attention_site = True

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | None = None,
        *,
        kv_heads: int | None = None,
        rotary_base: float | None = 10000.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim)
        self.heads = heads
        self.head_dim = check_divides(heads, dim, "dim")
        self.kv_heads = heads if kv_heads is None else check_count("kv_heads", kv_heads)
        if heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {heads}")
        self.window = None if window is None else check_count("window", window)
        if rotary_base is not None and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}; use rotary_base=None")
        self.rotary_base = rotary_base
        self.pattern: Pattern = Causal() if window is None else Sliding(window)
        self.qkv_proj = nn.Linear(dim, (heads + 2 * self.kv_heads) * self.head_dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim, bias=bias)

    def mix(
        self,
        x: Float[Tensor, "batch n dim"],
        lengths: Int[Tensor, " batch"] | None,
        state: State | None,
        prefix: Float[Tensor, "tokens dim"] | None = None,
    ) -> tuple[Float[Tensor, "batch n dim"], KeyValueState]:
        """As `SequenceMixer.mix`. Every query sees the tokens of ``prefix``, which are the same for all sequences and
        stand before the first one; they are not part of the state."""
        past = expect(state, KeyValueState)
        before = 0 if prefix is None else prefix.shape[0]
        where = positions(x, past) + before
        query, key, value = self.project(x, where)
        extra = None
        if prefix is not None and before:
            _, *seen_by_all = self.project(prefix[None], torch.arange(before, device=x.device)[None])
            extra_key, extra_value = (t.expand(x.shape[0], -1, -1, -1) for t in seen_by_all)
            extra = (extra_key, extra_value)
        if past is None:
            # Padding stands on the right, where no real query looks.
            out = sited(self, query, key, value, self.pattern, extra_kv=extra)
            after = KeyValueState.empty(key, value, self.window).append(key, value, lengths)
        else:
            seen = past.followed_by(key, value)
            hidden, start = seen.hidden, seen.seen - seen.key.shape[1]
            run = (
                partial(_last, hidden=hidden, scale=self.head_dim**-0.5) if x.shape[1] == 1 and extra is None else None
            )
            out = sited(
                self, query, seen.key, seen.value, self.pattern, key_padding=hidden, extra_kv=extra, key_start=start,
                run=run,
            )  # fmt: skip
            after = seen.settled(key.shape[1], lengths)
        return self.out_proj(out.flatten(-2)), after

    def project(
        self, x: Float[Tensor, "batch n dim"], where: Int[Tensor, "rows n"]
    ) -> tuple[
        Float[Tensor, "batch n heads head_dim"],
        Float[Tensor, "batch n kv_heads head_dim"],
        Float[Tensor, "batch n kv_heads head_dim"],
    ]:
        """Queries, keys and values of tokens at the positions ``where``."""
        heads = (self.heads, self.kv_heads, self.kv_heads)
        query, key, value = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim)).split(heads, dim=-2)
        if self.rotary_base is not None:
            query, key = rotate(query, where, self.rotary_base), rotate(key, where, self.rotary_base)
        return query, key, value

    def state_bytes(self, n: int) -> int:
        """``2 min(n, window - 1) kv_heads head_dim`` numbers."""
        kept = n if self.window is None else min(n, self.window - 1)
        return 2 * kept * self.kv_heads * self.head_dim * self.itemsize

    def extra_repr(self) -> str:
        shown = [str(self.dim), f"heads={self.heads}"]
        if self.window is not None:
            shown.append(f"window={self.window}")
        if self.kv_heads != self.heads:
            shown.append(f"kv_heads={self.kv_heads}")
        return ", ".join([*shown, f"rotary_base={self.rotary_base}"])


def _last(
    query: Float[Tensor, "batch 1 heads head_dim"],
    key: Float[Tensor, "batch keys kv_heads head_dim"],
    value: Float[Tensor, "batch keys kv_heads head_dim"],
    hidden: Bool[Tensor, "batch keys"],
    scale: float,
) -> Float[Tensor, "batch 1 heads head_dim"]:
    """Attention of one token, which sees all that is not hidden. It would leave the lanes of our kernel idle and need a
    plan of its own at every length; torch's is faster."""
    sharing = query.reshape(query.shape[0], key.shape[2], -1, query.shape[-1])  # heads that share keys, as if tokens
    out = F.scaled_dot_product_attention(
        sharing, key.transpose(1, 2), value.transpose(1, 2), attn_mask=~hidden[:, None, None], scale=scale
    )
    return out.reshape(*query.shape[:-1], value.shape[-1])
