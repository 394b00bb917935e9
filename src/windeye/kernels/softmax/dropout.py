"""Attention dropout from a counter: whether a pair is kept depends only on the seed and the pair.

Nothing is stored between forward and backward, tiles can be visited in any order, and every backend drops the same
pairs. The generator is the 32-bit finaliser of MurmurHash3, applied once per query and once per pair.
"""

from __future__ import annotations

from math import prod

import torch

from windeye.kernels.softmax.problem import Problem

_MASK = 0xFFFFFFFF


def mix(x: torch.Tensor) -> torch.Tensor:
    """MurmurHash3's 32-bit finaliser, on int64 tensors that hold unsigned 32-bit values."""
    x = x & _MASK
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def threshold(dropout_p: float) -> int:
    """Pairs whose hash lies below this are dropped."""
    return min(round(dropout_p * 2**32), 2**32 - 1)


def keep_mask(seed: torch.Tensor, problem: Problem, device: torch.device) -> torch.Tensor:
    """Which pairs survive, bool [batch, heads, queries, keys]."""

    def count(n: int) -> torch.Tensor:
        return torch.arange(n, dtype=torch.int64, device=device)

    plane = count(problem.batch * problem.heads).reshape(problem.batch, problem.heads, 1, 1)
    query = count(prod(problem.grid)).reshape(-1, 1)
    key = count(prod(problem.grid_kv))
    head = mix(seed.to(device) + plane * 0x9E3779B9)
    row = mix(head + query * 0x9E3779B9)
    return mix(row ^ ((key * 0x85EBCA6B) & _MASK)) >= threshold(problem.dropout_p)
