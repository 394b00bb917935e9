"""Dynamic mask attention: each head keeps the keys whose values score best, and the score enters its logits."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from windeye.kernels.recurrence.problem import state_dtype
from windeye.memory import State, TopwCache
from windeye.nn.mixer import SequenceMixer, check_count, check_divides, expect, positions
from windeye.nn.norms import RMSNorm
from windeye.nn.rotary import rotate

ScoreHeads = Literal["query", "kv"]
Score = Literal["exp", "linear"]

LARGEST = 88.0
"""Exponent of the last exponential that float32 holds; two infinite logits would make a softmax NaN."""


class DynamicMaskAttention(SequenceMixer):
    """Softmax attention over the ``keep`` keys of largest learned score among those up to the query, head by head.

    ``tau_j = softplus(dt_proj(v_j))`` and ``delta_j = exp(A tau_j)``, from the values of all heads of token ``j``.
    Query ``i`` keeps the ``keep`` tokens ``j <= i`` of largest ``delta_j`` (of equal ones the later), and attends with
    logits ``q_i k_j / sqrt(head_dim) + delta_j``. The selection is trained through the ``delta`` of what it keeps; a
    key that all queries have dropped gets no gradient. A token need not keep itself. The state is the kept tokens of
    each head.

    While ``A`` is zero all scores are equal: a sliding window of ``keep`` keys. Then ``A`` gets a gradient and
    ``dt_proj`` none: training starts through ``A``. Values carry no position: in a first layer equal tokens have
    equal scores.

    Args:
        dim: channels in and out.
        heads: query heads.
        keep: keys that each query keeps. A sequence of at most so many tokens is seen entirely.
        kv_heads: heads of keys and values, a divisor of ``heads``; default as many.
        head_dim: width of a head; default ``dim / heads``.
        score_heads: a score for each head of the queries (as the first Doge), or one per head of keys and values,
            which their group shares (as the second, and the kernel's authors).
        score: "exp" as above; "linear" is ``delta = A tau`` (the later kernels). Exponents end at 88, beyond
            which float32 overflows; the gradient is zero there.
        window: besides, keys are seen by so many queries at most. It comes after the selection: a key that has left
            the window still takes one of the ``keep`` places.
        rotary_base: base of the rotary positions (halves) on queries and keys; None leaves positions out.
        qk_norm, norm_eps: RMS norms with weights over each head of queries and keys, before the rotation.
        a_std: standard deviation of ``A`` at the start. Published models start from zero, or from 0.02.
        bias: whether the projections have biases; that of the score has none.

    Differs from: the official code, which breaks ties by chance, so that one pass and cached steps differ there, and
    which applies a sliding window before the selection.

    Raises:
        ValueError, TypeError: sizes or options do not fit; in the forward pass, a score is NaN, or
            the state is of a layer that keeps other keys.

    Source: dma spec; equal to the official layers, see tests/nn/test_dynamic_mask.py.

    Example:
        >>> layer = DynamicMaskAttention(32, heads=4, keep=8, kv_heads=2, a_std=0.5)
        >>> x = torch.randn(2, 50, 32)
        >>> out, state = layer(x, return_state=True)
        >>> state.key.shape, state.seen
        (torch.Size([2, 8, 4, 8]), tensor([50, 50]))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        keep: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        score_heads: ScoreHeads = "query",
        score: Score = "exp",
        window: int | None = None,
        rotary_base: float | None = 10000.0,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        a_std: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim)
        for name, option, known in (("score_heads", score_heads, ScoreHeads), ("score", score, Score)):
            if option not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {option!r}")
        if not 0.0 <= a_std < math.inf:
            raise ValueError(f"a_std must be at least 0, got {a_std}")
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim") if head_dim is None else check_count("head_dim", head_dim)
        self.kv_heads = heads if kv_heads is None else check_count("kv_heads", kv_heads)
        if heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {heads}")
        if rotary_base is not None and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}; use rotary_base=None")
        self.keep = check_count("keep", keep)
        self.window = None if window is None else check_count("window", window)
        self.score, self.score_heads, self.rotary_base, self.a_std = score, score_heads, rotary_base, a_std
        self.q_proj = nn.Linear(dim, heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=bias)
        self.q_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else nn.Identity()
        scored = heads if score_heads == "query" else self.kv_heads
        self.dt_proj = nn.Linear(self.kv_heads * self.head_dim, scored, bias=False)
        self.A = nn.Parameter(torch.empty(scored))
        self.out_proj = nn.Linear(heads * self.head_dim, dim, bias=bias)
        self._scored: tuple[list[tuple[int, int]], tuple[Tensor, Tensor | None]] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Of the score's factor; projections start as their modules say."""
        nn.init.normal_(self.A, std=self.a_std)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], TopwCache]:
        past = expect(state, TopwCache)
        if past is not None and (past.w, past.window) != (self.keep, self.window):
            raise ValueError(
                f"state is of a layer with keep={past.w}, window={past.window}, this one has keep={self.keep}, "
                f"window={self.window}"
            )
        score = self.scores(x)
        query, key, value = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        query, key = (norm(t).to(value.dtype) for norm, t in ((self.q_norm, query), (self.k_norm, key)))
        if self.rotary_base is not None:
            where = positions(x, past)
            query, key = rotate(query, where, self.rotary_base), rotate(key, where, self.rotary_base)
        if past is None:
            past = TopwCache.empty(self.keep, key, value, score, window=self.window)
        out, after = past.step(query, key, value, score, lengths=lengths)
        return self.out_proj(out.flatten(-2)), after

    def scores(self, x: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch score_heads n"]:
        """``delta`` of each token and head, by which it is ranked and which is added to its logits.

        In float32, float64 for float64. It is computed in float64, through the product of the two projections: a
        matrix product rounds a row otherwise in another batch, so that equal tokens would rank by chance, one way in a
        pass and another way in steps.
        """
        with torch.autocast(x.device.type, enabled=False):
            tau = F.softplus(F.linear(x.double(), *self._scoring()))
        score = (self.A.double() * tau).transpose(1, 2)
        if self.score == "exp":
            score = score.clamp(max=LARGEST).exp()
        return score.to(state_dtype(self.A.dtype))

    def _scoring(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the map from a token to the arguments of ``tau``.

        Without gradients the last ones are taken as long as their factors are the same: a product of matrices would
        take a third of the time of a step.
        """
        factors = [p for p in (self.dt_proj.weight, self.v_proj.weight, self.v_proj.bias) if p is not None]
        lasting = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        lasting = lasting and not any(p.is_inference() for p in factors)  # which have no versions
        made_from = [(p.data_ptr(), p._version) for p in factors] if lasting else None
        if lasting and self._scored is not None and self._scored[0] == made_from:
            return self._scored[1]
        dt, weight, *bias = (p.double() for p in factors)
        scoring = (dt @ weight, dt @ bias[0] if bias else None)
        if made_from is not None:
            self._scored = (made_from, scoring)
        return scoring

    def state_bytes(self, n: int) -> int:
        """``min(n, keep)`` tokens for each head that has scores: key, value, score and position."""
        number = 2 * self.head_dim * self.itemsize + max(4, self.itemsize) + 8
        return min(n, self.keep) * self.A.numel() * number

    def extra_repr(self) -> str:
        shown = [str(self.dim), f"heads={self.heads}", f"keep={self.keep}"]
        if self.kv_heads != self.heads:
            shown.append(f"kv_heads={self.kv_heads}")
        if self.window is not None:
            shown.append(f"window={self.window}")
        return ", ".join([*shown, f"score={self.score!r}", f"score_heads={self.score_heads!r}"])
