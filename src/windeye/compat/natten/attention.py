"""NATTEN's dense attention, and the exact merge of attentions over different keys."""

# ruff: noqa: ARG001 - NATTEN's parameters that choose among its kernels
from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from windeye.compat.natten.backends import FMHA_BACKENDS, attend_on
from windeye.compat.natten.checks import TILE_SIZES, check_attention_tensors, check_schedule, check_tile_size
from windeye.compat.natten.varlen import packed_lengths
from windeye.ops import merge
from windeye.patterns import Causal, Documents, Full, Pattern


def attention(
    query: Float[Tensor, "batch seqlen heads head_dim"],
    key: Float[Tensor, "batch seqlen_kv kv_heads head_dim"],
    value: Float[Tensor, "batch seqlen_kv kv_heads value_dim"],
    is_causal: bool = False,
    scale: float | None = None,
    seqlens_Q: Tensor | None = None,
    seqlens_KV: Tensor | None = None,
    cumulative_seqlen_Q: Tensor | None = None,
    cumulative_seqlen_KV: Tensor | None = None,
    max_seqlen_Q: int | None = None,
    max_seqlen_KV: int | None = None,
    backend: str | None = None,
    q_tile_size: int | None = None,
    kv_tile_size: int | None = None,
    backward_q_tile_size: int | None = None,
    backward_kv_tile_size: int | None = None,
    backward_kv_splits: int | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: str | None = None,
    torch_compile: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Every query attends to every key, or to itself and those before it, or inside its own packed sequence.

    Args:
        query, key, value: heads last; ``kv_heads`` divides ``heads``.
        is_causal: hide keys after the query. Needs equal query and key lengths, also of every packed sequence.
        scale: factor of the logits, default ``head_dim ** -0.5``.
        seqlens_Q, seqlens_KV: tokens of each packed sequence, int32; batch is 1.
        cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q, max_seqlen_KV: the same as running sums from 0,
            see `generate_varlen_parameters`.
        backend: None or "flex-fmha"; other names are refused, see `windeye.compat.natten.backends`.
        q_tile_size ... torch_compile: choices among NATTEN's kernels. Checked, without effect: no result of NATTEN
            depends on them, and windeye plans its own tiles.
        return_lse: also return the log-sum-exp of each row, [batch, seqlen, heads], float32 (float64 for float64).

    Raises:
        ValueError: tensors or parameters do not fit; names them.
        TypeError: a dtype that `windeye.attend` does not know.
        NotImplementedError: a backend that windeye cannot honour; causal with different lengths.

    Differs from: NATTEN, which takes ``scale=0`` for a missing scale; here it is a scale. Causal attention between
    different lengths is refused because the alignment of NATTEN's kernels is not documented.

    Example:
        >>> q, k, v = torch.randn(3, 2, 10, 4, 8).unbind(0)
        >>> attention(q, k, v, is_causal=True).shape
        torch.Size([2, 10, 4, 8])
    """
    check_attention_tensors(query, key, value, rank=1, same_grid=False)
    if not isinstance(is_causal, bool):
        raise ValueError(f"is_causal must be a bool, got {is_causal!r}")
    for name, size in zip(
        TILE_SIZES,
        (q_tile_size, kv_tile_size, backward_q_tile_size, backward_kv_tile_size, backward_kv_splits),
        strict=True,
    ):
        check_tile_size(name, size)
    check_schedule(kernel_schedule)
    lengths, lengths_kv = packed_lengths(
        query, key, value, seqlens_Q, seqlens_KV, cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q, max_seqlen_KV
    )
    if is_causal and lengths != lengths_kv:
        raise NotImplementedError(
            f"is_causal needs equal query and key lengths of every sequence, got {lengths} and {lengths_kv}; "
            f"windeye.attend with windeye.Causal() aligns different lengths at their ends"
        )

    if lengths != lengths_kv and len(lengths) > 1:
        # No one pattern describes blocks of unequal sides, so each sequence is a call of its own.
        packed = zip(
            torch.split(query, list(lengths), dim=1),
            torch.split(key, list(lengths_kv), dim=1),
            torch.split(value, list(lengths_kv), dim=1),
            strict=True,
        )
        parts = [attention(q, k, v, scale=scale, backend=backend, return_lse=return_lse) for q, k, v in packed]
        if return_lse:
            out, lse = (torch.cat(pieces, dim=1) for pieces in zip(*parts, strict=True))
            return out, lse
        return torch.cat(cast(list[Tensor], parts), dim=1)

    pattern: Pattern = Full() if len(lengths) == 1 else Documents(lengths)
    if is_causal:
        pattern = pattern & Causal()
    return attend_on(backend, FMHA_BACKENDS, query, key, value, pattern, scale=scale, return_lse=return_lse)


def merge_attentions(
    outputs: Sequence[Float[Tensor, "batch seqlen heads head_dim"]],
    lse_tensors: Sequence[Float[Tensor, "batch seqlen heads"]],
    torch_compile: bool = True,
    use_autograd_fix: bool = True,
) -> tuple[Tensor, Tensor]:
    """One attention over the union of keys, from ``(out, lse)`` of attentions over disjoint keys; see `windeye.merge`.

    Args:
        outputs: two or more, of one shape.
        lse_tensors: their log-sum-exps.
        torch_compile, use_autograd_fix: without effect. NATTEN compiles the merge, and overwrites what its kernels
            saved because their log-sum-exp carries no gradient; windeye's does, so plain differentiation is right.

    Raises:
        ValueError: fewer than two outputs, different numbers, or shapes that do not fit.

    Example:
        >>> q, k, v = torch.randn(3, 1, 8, 2, 4).unbind(0)
        >>> near = attention(q, k[:, :5], v[:, :5], return_lse=True)
        >>> far = attention(q, k[:, 5:], v[:, 5:], return_lse=True)
        >>> out, lse = merge_attentions([near[0], far[0]], [near[1], far[1]])
        >>> torch.allclose(out, attention(q, k, v), atol=1e-6)
        True
    """
    if len(outputs) < 2:
        raise ValueError(f"outputs must hold at least two attentions, got {len(outputs)}")
    if len(outputs) != len(lse_tensors):
        raise ValueError(f"outputs and lse_tensors differ in number: {len(outputs)} and {len(lse_tensors)}")
    for index, out in enumerate(outputs):
        if out.dim() != 4:
            raise ValueError(f"outputs[{index}] must be [batch, seqlen, heads, head_dim], got {tuple(out.shape)}")
    return merge(*zip(outputs, lse_tensors, strict=True))
