"""Sequences of different lengths, packed one after the other into a batch of one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def generate_varlen_parameters(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seqlens_Q: Tensor | None = None,
    seqlens_KV: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, int, int]:
    """``(cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q, max_seqlen_KV)`` for `attention`.

    Args:
        query, key, value: packed tokens [1, total, heads, head_dim].
        seqlens_Q, seqlens_KV: int32 [sequences], tokens of each sequence. Both or neither.

    Raises:
        ValueError: one without the other, not int32, not one axis, of different sizes, or a batch above one.

    Example:
        >>> q = torch.zeros(1, 5, 2, 8)
        >>> lengths = torch.tensor([2, 3], dtype=torch.int32)
        >>> generate_varlen_parameters(q, q, q, lengths, lengths)[0].tolist()
        [0, 2, 5]
    """
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        raise ValueError(
            f"query, key and value must have one batch, got {query.shape[0]}, {key.shape[0]} and {value.shape[0]}"
        )
    if seqlens_Q is None and seqlens_KV is None:
        return None, None, 0, 0
    if seqlens_Q is None or seqlens_KV is None:
        missing = "seqlens_Q" if seqlens_Q is None else "seqlens_KV"
        raise ValueError(f"seqlens_Q and seqlens_KV come together, but {missing} is None")
    _check_counts("seqlens_Q", seqlens_Q, query, 1)
    _check_counts("seqlens_KV", seqlens_KV, query, 1)
    if seqlens_Q.shape != seqlens_KV.shape:
        raise ValueError(f"seqlens_Q has {len(seqlens_Q)} sequences but seqlens_KV has {len(seqlens_KV)}")
    if query.shape[0] != 1:
        raise ValueError(f"sequences of different lengths are packed into a batch of 1, got batch {query.shape[0]}")
    totals = [torch.nn.functional.pad(s.cumsum(0).to(torch.int32), (1, 0)) for s in (seqlens_Q, seqlens_KV)]
    return totals[0], totals[1], int(seqlens_Q.max()), int(seqlens_KV.max())


def packed_lengths(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seqlens_Q: Tensor | None,
    seqlens_KV: Tensor | None,
    cumulative_seqlen_Q: Tensor | None,
    cumulative_seqlen_KV: Tensor | None,
    max_seqlen_Q: int | None,
    max_seqlen_KV: int | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of each packed sequence, queries and keys; one sequence of all tokens when nothing is packed.

    Raises:
        ValueError: parameters that are missing or do not fit the tensors or each other.
    """
    tensors = (seqlens_Q, seqlens_KV, cumulative_seqlen_Q, cumulative_seqlen_KV)
    if all(t is None for t in tensors) and not max_seqlen_Q and not max_seqlen_KV:
        return (query.shape[1],), (key.shape[1],)
    if seqlens_Q is not None or seqlens_KV is not None:
        cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q, max_seqlen_KV = generate_varlen_parameters(
            query, key, value, seqlens_Q, seqlens_KV
        )
    if cumulative_seqlen_Q is None or cumulative_seqlen_KV is None or not max_seqlen_Q or not max_seqlen_KV:
        raise ValueError(
            "packed sequences need all of cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q and max_seqlen_KV, "
            "or both of seqlens_Q and seqlens_KV"
        )
    if query.shape[0] != 1:
        raise ValueError(f"sequences of different lengths are packed into a batch of 1, got batch {query.shape[0]}")
    lengths_q = _lengths("Q", cumulative_seqlen_Q, max_seqlen_Q, query)
    lengths_kv = _lengths("KV", cumulative_seqlen_KV, max_seqlen_KV, key)
    if len(lengths_q) != len(lengths_kv):
        raise ValueError(
            f"cumulative_seqlen_Q has {len(lengths_q)} sequences but cumulative_seqlen_KV has {len(lengths_kv)}"
        )
    return lengths_q, lengths_kv


def _lengths(name: str, cumulative: Tensor, longest: int, tokens: Tensor) -> tuple[int, ...]:
    _check_counts(f"cumulative_seqlen_{name}", cumulative, tokens, 2)
    ends = cumulative.tolist()
    lengths = tuple(after - before for before, after in pairwise(ends))
    if ends[0] != 0 or ends[-1] != tokens.shape[1] or min(lengths) < 0:
        raise ValueError(
            f"cumulative_seqlen_{name} must rise from 0 to the {tokens.shape[1]} packed tokens, got {ends}"
        )
    # A kernel launched for a shorter longest sequence would leave tokens out.
    if isinstance(longest, bool) or not isinstance(longest, int) or not max(lengths) <= longest <= tokens.shape[1]:
        raise ValueError(
            f"max_seqlen_{name} must be an integer between the longest sequence, {max(lengths)}, "
            f"and all {tokens.shape[1]} tokens, got {longest!r}"
        )
    return lengths


def _check_counts(name: str, counts: object, like: Tensor, minimum: int) -> None:
    if not isinstance(counts, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(counts).__name__}")
    if counts.device != like.device:
        raise ValueError(f"{name} is on {counts.device} but query is on {like.device}")
    if counts.dtype != torch.int32:
        raise ValueError(f"{name} must be int32, got {counts.dtype}")
    if counts.dim() != 1 or counts.shape[0] < minimum:
        raise ValueError(f"{name} must have one axis of at least {minimum} entries, got shape {tuple(counts.shape)}")
