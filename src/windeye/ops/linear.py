"""Linear attention: attention without a softmax, whose past is a state of fixed size."""

from __future__ import annotations

import math
from typing import Literal, overload

from jaxtyping import Float, Int
from torch import Tensor

from windeye.kernels.recurrence import registry
from windeye.kernels.recurrence.problem import check, problem_of


@overload
def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    log_decay: Tensor | None = ...,
    feature_map: str | None = ...,
    normalize: bool = ...,
    scale: float = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    cu_seqlens: Tensor | None = ...,
    lengths: Tensor | None = ...,
    chunk_size: int | None = ...,
    form: str = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    log_decay: Tensor | None = ...,
    feature_map: str | None = ...,
    normalize: bool = ...,
    scale: float = ...,
    initial_state: Tensor | None = ...,
    return_state: Literal[True],
    cu_seqlens: Tensor | None = ...,
    lengths: Tensor | None = ...,
    chunk_size: int | None = ...,
    form: str = ...,
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...


def linear_attention(
    query: Float[Tensor, "batch tokens heads head_dim"],
    key: Float[Tensor, "batch tokens kv_heads head_dim"],
    value: Float[Tensor, "batch tokens kv_heads value_dim"],
    *,
    log_decay: Float[Tensor, " heads"] | Float[Tensor, "batch tokens heads"] | None = None,
    feature_map: str | None = None,
    normalize: bool = False,
    scale: float = 1.0,
    initial_state: Float[Tensor, "sequences heads features columns"] | None = None,
    return_state: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    lengths: Int[Tensor, " batch"] | None = None,
    chunk_size: int | None = None,
    form: str = "auto",
    backend: str = "auto",
) -> Float[Tensor, "batch tokens heads value_dim"] | tuple[Tensor, Tensor]:
    """Causal linear attention with decay and a carried state.

    ``out_i = scale sum_{j<=i} weight(<query_i, key_j>) exp(g_{j+1} + ... + g_i) value_j`` with ``g`` the log-decay. The
    same numbers come from the recurrence ``state_i = exp(g_i) state_{i-1} + phi(key_i) value_i^T``,
    ``out_i = scale phi(query_i) state_i``: a token sees itself undecayed and time is linear in tokens.

    Args:
        query, key, value: [batch, tokens, heads, dim], any strides; float32, bfloat16, float16 or float64. ``kv_heads``
            divides ``heads``: query head ``h`` reads key head ``h // (heads // kv_heads)``.
        log_decay: at most 0, per head or per token and head; None keeps everything, ``-inf`` forgets everything
            before that token. `windeye.decay` has the published rates (``log_decay = -rate``).
        feature_map: None for ``weight(u) = u`` and ``phi(x) = x``; "taylor2" for ``weight(u) = 1 + u + u^2 / 2``, whose
            features are compact (see `windeye.kernels.recurrence.features`). Scale query and key yourself: Based takes
            ``u = <q, k> / sqrt(head_dim)``.
        normalize: divide by the same sum with ones as values, plus 1e-12.
        scale: factor of the output. There is no hidden ``head_dim ** -0.5``.
        initial_state: the state before the first token, [batch or sequences, heads, features, value_dim], with one more
            column for the denominator if ``normalize``. float32 (float64 for float64).
        return_state: also return the state after the last token, differentiable, in the same layout.
        cu_seqlens: sequences packed one after the other into batch 1, as rising bounds ``0 .. tokens``; each starts
            from its own row of ``initial_state``, or from zero.
        lengths: right padding, the true tokens of each batch entry. Padded tokens change nothing and give zeros.
        chunk_size: tokens per chunk of the chunked forms; changes speed and rounding only.
        form: "auto", "chunk", "parallel" (quadratic) or "recurrent" (token by token).
        backend: "auto", "cpu" (C++), "triton" (CUDA) or "torch".

    Returns:
        ``out``, or ``(out, final_state)``.

    Raises:
        ValueError, TypeError: shapes, dtypes, decays, bounds or options do not fit; names the argument and the values.

    Example:
        >>> import torch, windeye
        >>> q, k, v = torch.randn(3, 1, 100, 2, 8).unbind(0)
        >>> decay = -windeye.decay.tnl_rates(2, layer=0, layers=4).float()
        >>> whole = windeye.linear_attention(q, k, v, log_decay=decay)
        >>> _, state = windeye.linear_attention(q[:, :60], k[:, :60], v[:, :60], log_decay=decay, return_state=True)
        >>> rest = windeye.linear_attention(q[:, 60:], k[:, 60:], v[:, 60:], log_decay=decay, initial_state=state)
        >>> torch.allclose(rest, whole[:, 60:], atol=1e-4)
        True
    """
    check(query, key, value, log_decay, feature_map, initial_state, normalize, cu_seqlens, lengths, chunk_size)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"scale must be a number, got {scale!r}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    problem = problem_of(
        query, key, value, cu_seqlens, feature_map=feature_map, normalize=bool(normalize), scale=float(scale),
        chunk_size=chunk_size, needs_state=return_state,
    )  # fmt: skip
    implementation = registry.choose(problem, form, backend)
    out, state = implementation.attend(problem, query, key, value, log_decay, initial_state, cu_seqlens, lengths)
    return (out, state) if return_state else out
