"""The tensors of one call, which backends and kernels hand on as one."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Operands(NamedTuple):
    """What a call computes with; `Problem` says what is to be computed."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None = None
    key_padding: torch.Tensor | None = None
    seed: torch.Tensor | None = None
    """Of the dropout: one int64, on any device."""
    extra_key: torch.Tensor | None = None
    """[batch, extra, kv_heads, head_dim] with at least one key: every query sees them besides its pattern, without bias
    and padding. Only backends that join extra keys are given any."""
    extra_value: torch.Tensor | None = None
    extra_seed: torch.Tensor | None = None
    """Of the dropout of their pairs, as of a call with these keys alone."""


class Gradients(NamedTuple):
    """Of each operand that is differentiable, None where the operand is."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None = None
    extra_key: torch.Tensor | None = None
    extra_value: torch.Tensor | None = None
