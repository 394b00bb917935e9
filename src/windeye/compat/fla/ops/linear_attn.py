"""Linear attention without decay, divided by its running sum of keys with ``normalize``.

The pair ``(S, z)`` is then the state: ``o_t = scale q_t S_t / (scale <q_t, z_t> + 1e-10)``, z the sum of keys as
[sequences, 1, heads, key_dim]. Features of q and k are the caller's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.compat.fla.ops.call import check_packing, recurrence

State = Tensor | tuple[Tensor | None, Tensor | None]
EPSILON = 1e-10


def chunk_linear_attn(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    normalize: bool = True,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, State | None]:
    """Causal linear attention.

    Args:
        scale: ``key_dim ** -0.5`` unless given.
        initial_state: S as [sequences, heads, key_dim, value_dim]; with ``normalize`` also the pair ``(S, z)``.

    Returns:
        ``(o, S | None)``; with ``normalize`` ``(o, (S | None, z))``, S None unless asked for.

    Raises:
        ValueError: packed sequences in a batch, states that do not fit.

    Example:
        >>> import torch
        >>> q, k, v = torch.rand(3, 1, 50, 2, 8).unbind(0)
        >>> o, (state, total) = chunk_linear_attn(q, k, v, output_final_state=True)
        >>> state.shape, total.shape
        (torch.Size([1, 2, 8, 8]), torch.Size([1, 1, 2, 8]))
    """
    return _linear(q, k, v, scale, initial_state, output_final_state, False, normalize, cu_seqlens)


def fused_chunk_linear_attn(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    normalize: bool = True,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, State | None]:
    """The function of `chunk_linear_attn`; here the same kernel."""
    return _linear(q, k, v, scale, initial_state, output_final_state, False, normalize, cu_seqlens)


def fused_recurrent_linear_attn(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    scale: float | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    normalize: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, State | None]:
    """The function of `chunk_linear_attn`, but ``normalize`` is off unless asked for; ``reverse`` as in
    `fused_recurrent_simple_gla`."""
    return _linear(q, k, v, scale, initial_state, output_final_state, reverse, normalize, cu_seqlens)


def _linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    initial_state: State | None,
    output_final_state: bool,
    reverse: bool,
    normalize: bool,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, State | None]:
    if not normalize:
        if isinstance(initial_state, tuple):
            raise ValueError("initial_state is a pair (S, z), which is the state of normalize=True")
        return recurrence(
            q, k, v, scale=scale, initial_state=initial_state, output_final_state=output_final_state, reverse=reverse,
            cu_seqlens=cu_seqlens,
        )  # fmt: skip
    pair = initial_state if isinstance(initial_state, tuple) else (initial_state, None)
    check_packing(q, pair[0], cu_seqlens)
    # The sum of keys is what a value of one collects; numerator and denominator are divided before they are rounded.
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    ones = torch.ones_like(v[..., :1])
    sums, state = recurrence(
        q.to(wide), k.to(wide), torch.cat([v, ones], -1).to(wide), scale=scale, initial_state=_joined(q, v, *pair),
        output_final_state=True, reverse=reverse, cu_seqlens=cu_seqlens,
    )  # fmt: skip
    assert state is not None
    o = (sums[..., :-1] / (sums[..., -1:] + EPSILON)).to(q.dtype)
    return o, (state[..., :-1] if output_final_state else None, state[..., -1][:, None])


def _joined(q: Tensor, v: Tensor, state: Tensor | None, total: Tensor | None) -> Tensor | None:
    """[sequences, heads, key_dim, value_dim + 1] of S and z, each zero unless given."""
    if state is None and total is None:
        return None
    if total is None:
        assert state is not None
        total = state.new_zeros(state.shape[0], 1, *state.shape[1:3])
    if state is None:
        state = total.new_zeros(total.shape[0], *q.shape[2:], v.shape[-1])
    return torch.cat([state, total.transpose(1, 2).transpose(2, 3).to(state.dtype)], dim=-1)
