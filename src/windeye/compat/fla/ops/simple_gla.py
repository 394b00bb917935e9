"""Linear attention that fades by a number per token and head, or per head: GLA with a scalar gate, Mamba-2, RetNet."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.compat.fla.ops.call import check_options, check_packing, recurrence
from windeye.kernels.recurrence.reference import decay_between


def chunk_simple_gla(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    g: Float[Tensor, "batch tokens heads"] | None = None,
    g_gamma: Float[Tensor, " heads"] | None = None,
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads _ _"] | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    cu_seqlens_cpu: Int[Tensor, " bounds"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """``S_t = exp(g_t) S_{t-1} + k_t v_t^T``, ``o_t = scale q_t S_t``.

    Args:
        g, g_gamma: log-decay, at most 0, per token and head or per head; one of the two or none.
        scale: ``key_dim ** -0.5`` unless given.
        initial_state: [sequences, heads, key_dim, value_dim], the last two swapped with ``state_v_first``.
        cu_seqlens, cu_seqlens_cpu: bounds of sequences packed into batch 1; the copy on the CPU saves a wait.
        **kwargs: ``chunk_size``, a power of 2.

    Returns:
        ``(o, final_state)``, the state None unless asked for, in the layout of ``initial_state`` and in float32.

    Raises:
        ValueError: two decays, growth, packed sequences in a batch, states that do not fit.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 100, 4, 16).unbind(0)
        >>> g = torch.nn.functional.logsigmoid(torch.randn(2, 100, 4))
        >>> o, state = chunk_simple_gla(q, k, v, g, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([2, 100, 4, 16]), torch.Size([2, 4, 16, 16]))
    """
    return recurrence(
        q, k, v, log_decay=_decay(g, g_gamma), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, state_v_first=state_v_first,
        cu_seqlens=cu_seqlens if cu_seqlens_cpu is None else cu_seqlens_cpu, chunk_size=check_options(kwargs),
    )  # fmt: skip


def fused_chunk_simple_gla(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    g: Float[Tensor, "batch tokens heads"] | None = None,
    g_gamma: Float[Tensor, " heads"] | None = None,
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads key_dim value_dim"] | None = None,
    output_final_state: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The function of `chunk_simple_gla`; here the same kernel."""
    return recurrence(
        q, k, v, log_decay=_decay(g, g_gamma), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, cu_seqlens=cu_seqlens,
    )  # fmt: skip


def fused_recurrent_simple_gla(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    g: Float[Tensor, "batch tokens heads"] | None = None,
    g_gamma: Float[Tensor, " heads"] | None = None,
    scale: float | None = None,
    initial_state: Float[Tensor, "sequences heads _ _"] | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function of `chunk_simple_gla`, for short inputs and decoding; here the same kernel.

    ``reverse`` walks every sequence from its last token to its first: a token then sees later ones, and the state
    starts behind the last token. ``transpose_state_layout`` is an old name of ``state_v_first``.
    """
    return recurrence(
        q, k, v, log_decay=_decay(g, g_gamma), scale=scale, initial_state=initial_state,
        output_final_state=output_final_state, reverse=reverse,
        state_v_first=old_state_layout(state_v_first, kwargs), cu_seqlens=cu_seqlens,
    )  # fmt: skip


def parallel_simple_gla(
    q: Float[Tensor, "batch tokens heads key_dim"],
    k: Float[Tensor, "batch tokens heads key_dim"],
    v: Float[Tensor, "batch tokens heads value_dim"],
    g: Float[Tensor, "batch tokens heads"] | None = None,
    scale: float | None = None,
    output_attentions: bool = False,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    cu_seqlens_cpu: Int[Tensor, " bounds"] | None = None,
) -> tuple[Tensor, Float[Tensor, "batch heads tokens tokens"] | None]:
    """The function of `chunk_simple_gla` without states.

    Returns:
        ``(o, weights)``: the weights ``scale <q_i, k_j> exp(g_{j+1} + ... + g_i)`` if ``output_attentions``, else None.

    Raises:
        ValueError: weights of packed sequences, and what `chunk_simple_gla` refuses.
    """
    check_packing(q, None, cu_seqlens)
    if output_attentions and cu_seqlens is not None:
        raise ValueError("output_attentions has no form for packed sequences; give one sequence a batch entry")
    bounds = cu_seqlens if cu_seqlens_cpu is None else cu_seqlens_cpu
    o, _ = recurrence(q, k, v, log_decay=g, scale=scale, cu_seqlens=bounds)
    if not output_attentions:
        return o, None
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = q.transpose(1, 2).to(wide) @ k.permute(0, 2, 3, 1).to(wide)
    kept = torch.ones_like(scores).tril() if g is None else decay_between(g.transpose(1, 2).to(wide))
    return o, (scores * kept * (k.shape[-1] ** -0.5 if scale is None else scale)).to(q.dtype)


def old_state_layout(state_v_first: bool, options: dict[str, Any]) -> bool:
    """``state_v_first`` under either name."""
    if "transpose_state_layout" in options:
        if state_v_first:
            raise ValueError("state_v_first and transpose_state_layout are two names of one argument; give the first")
        warnings.warn("transpose_state_layout is now state_v_first", DeprecationWarning, stacklevel=3)
        state_v_first = options.pop("transpose_state_layout")
    if options:
        raise TypeError(f"unknown argument {next(iter(options))!r}")
    return state_v_first


def _decay(g: Tensor | None, g_gamma: Tensor | None) -> Tensor | None:
    if g is not None and g_gamma is not None:
        raise ValueError("g decays per token and g_gamma per head; give one of the two")
    return g_gamma if g is None else g
