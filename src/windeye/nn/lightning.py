"""Gated lightning attention: the token mixer of TransNormerLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.recurrence.problem import state_dtype
from windeye.memory import RecurrentState, State
from windeye.nn.activations import Activation, activation_of
from windeye.nn.mixer import SequenceMixer, check_divides, expect, positions, seen_after
from windeye.nn.norms import Norm, norm_of
from windeye.nn.rotary import LearnedRotary
from windeye.ops import linear_attention

Gate = Literal["linear", "lowrank_sigmoid", "none"]

HALF_RANGE = 2.0**15
"""Half of what float16 can hold: where tokens are hardly forgotten sums pass it, and infinity over infinity is NaN."""


class LightningAttention(SequenceMixer):
    """Decayed linear attention without softmax or denominator, then a norm over all heads together and a gate.

    ``out = out_proj(norm(concat_h o_h) * u)`` with ``q, k, v, u = qkvu_proj(x)`` and, per head, ``o = `` linear
    attention of ``silu(q), silu(k), v`` with ``log_decay = -rate``. The norm stands in for the denominator: without it
    outputs grow up to ``1 / rate`` times. Put into another model alone, without activation, norm and gate, the
    recurrence does not train well.

    In float16 sums are kept in float32 until they are normalised, so that layers that hardly forget do not overflow;
    with ``norm="none"`` they do, to infinity.

    Args:
        dim: channels in and out.
        heads: attention heads.
        rates: decay per head, from `windeye.decay`; None never forgets. They are fixed: learning them freely gave NaN
            in the authors' runs.
        hidden_dim: channels of q, k, v and u, a multiple of ``heads``; default ``dim``.
        lrpe: learned rotary positions on q and k (TransNormerLLM: in layer 0 only); the state doubles.
        activation: on q and k.
        activate_value: the activation on v, too.
        norm, norm_eps: over all heads together, before the gate.
        gate: "linear" multiplies with u; "lowrank_sigmoid" with the sigmoid of two linear maps through ``head_dim``
            (the example module of the kernel's repository); "none" leaves the gate out.

    Raises:
        ValueError, TypeError: sizes, rates or options do not fit.

    Source: lightning-attention spec; equal to the official code, see tests/nn/test_lightning.py.

    Example:
        >>> import windeye
        >>> layer = LightningAttention(32, heads=4, rates=windeye.decay.tnl_rates(4, layer=0, layers=12), lrpe=True)
        >>> x = torch.randn(2, 50, 32)
        >>> whole = layer(x)
        >>> _, state = layer(x[:, :49], return_state=True)
        >>> last, state = layer.step(x[:, 49], state)
        >>> torch.allclose(last, whole[:, 49], atol=1e-5), state.seen.tolist()
        (True, [50, 50])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        rates: Float[Tensor, " heads"] | Sequence[float] | None,
        *,
        hidden_dim: int | None = None,
        lrpe: bool = False,
        activation: Activation = "silu",
        activate_value: bool = False,
        norm: Norm = "simple_rms",
        norm_eps: float = 1e-6,
        gate: Gate = "linear",
    ) -> None:
        super().__init__(dim)
        hidden_dim = dim if hidden_dim is None else hidden_dim
        if gate not in get_args(Gate):
            raise ValueError(f"gate must be one of {', '.join(get_args(Gate))}, got {gate!r}")
        self.heads = heads
        self.head_dim = check_divides(heads, hidden_dim, "hidden_dim")
        # Numbers, not a buffer: a model in bfloat16 must not round them.
        self.rates = None if rates is None else _checked_rates(rates, heads)
        self.activation, self.activate_value = activation, activate_value
        self._activate = activation_of(activation)
        parts = 4 if gate == "linear" else 3
        self.qkvu_proj = nn.Linear(dim, parts * hidden_dim, bias=False)
        self.out_proj = nn.Linear(hidden_dim, dim, bias=False)
        self.norm = norm_of(norm, hidden_dim, norm_eps)
        self.lrpe = LearnedRotary(heads, self.head_dim) if lrpe else None
        self.gate: nn.Sequential | None = None
        if gate == "lowrank_sigmoid":
            narrow = nn.Linear(dim, self.head_dim, bias=False)
            self.gate = nn.Sequential(narrow, nn.Linear(self.head_dim, hidden_dim, bias=False), nn.Sigmoid())

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], RecurrentState]:
        past = expect(state, RecurrentState)
        query, key, value, *gate = self.qkvu_proj(x).split(self.heads * self.head_dim, dim=-1)
        query, key = self._activate(query), self._activate(key)
        if self.activate_value:
            value = self._activate(value)
        query, key, value = (t.unflatten(-1, (self.heads, self.head_dim)) for t in (query, key, value))
        if self.lrpe is not None:
            where = positions(x, past)
            query, key = self.lrpe(query, where), self.lrpe(key, where)
        guarded = query.dtype == torch.float16 and not isinstance(self.norm, nn.Identity)
        if guarded:
            query, key, value = query.float(), key.float(), value.float()
        out, matrix = linear_attention(
            query, key, value, log_decay=self._log_decay(query), lengths=lengths, return_state=True,
            initial_state=None if past is None else past.matrix,
        )  # fmt: skip
        out = self.norm(_in_range(out.flatten(-2)).half() if guarded else out.flatten(-2))
        if self.gate is not None:
            out = out * self.gate(x)
        elif gate:
            out = out * gate[0]
        return self.out_proj(out), RecurrentState(seen_after(x, lengths, past), matrix)

    def _log_decay(self, query: Tensor) -> Float[Tensor, " heads"] | None:
        if self.rates is None:
            return None
        return -torch.tensor(self.rates, dtype=state_dtype(query.dtype), device=query.device)

    def state_bytes(self, n: int) -> int:  # noqa: ARG002 - constant, which is the point
        """``4 heads head_dim^2`` in float32, twice that with LRPE."""
        features = self.head_dim * (1 if self.lrpe is None else 2)
        return self.heads * features * self.head_dim * max(4, self.itemsize)

    def extra_repr(self) -> str:
        rates = None if self.rates is None else [float(f"{rate:.3g}") for rate in self.rates]
        value = ", activate_value=True" if self.activate_value else ""
        return f"{self.dim}, heads={self.heads}, rates={rates}, activation={self.activation!r}{value}"


def _in_range(sums: Float[Tensor, "batch n hidden"]) -> Float[Tensor, "batch n hidden"]:
    """Rows that float16 cannot hold, made smaller; a norm follows, which does not see how large a row is."""
    largest = sums.detach().abs().amax(dim=-1, keepdim=True)
    return sums * (HALF_RANGE / largest).clamp(max=1)


def _checked_rates(rates: Tensor | Sequence[float], heads: int) -> tuple[float, ...]:
    numbers = tuple(float(rate) for rate in rates)
    if len(numbers) != heads:
        raise ValueError(f"rates must be one per head, {heads}, got {len(numbers)}")
    if not all(rate >= 0 for rate in numbers):
        raise ValueError(f"rates must be at least 0 (0 never forgets), got {list(numbers)}")
    return numbers
